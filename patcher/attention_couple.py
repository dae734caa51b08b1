"""Attention couple: each region of a picture looks at its own prompt, in one pass through the model.

The regions travel with the conditioning, not with the model: whatever else is combined with it, and whichever rows of
a batch it comes to, only those that carry regions are mixed. A wrapper around ComfyUI's batching finds them; two
attention patches, of ComfyUI's own kind, repeat the rows of such a prompt once for each region before the
cross-attention and add them up by the masks behind it. Between the two, every other patch sees a batch as it knows it:
`cond_or_uncond` and `uuids` name the repeated rows too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import lcm
from weakref import WeakKeyDictionary

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..loha import SettingsError
from .tiles import Tile, find_tiles

_KEY = "shinymas_regions"
_ROOM = "shinymas_before"  # of a block's options, between our two patches
_CHUNK = 77  # tokens


@dataclass(frozen=True, eq=False)
class Regions:
    """What each region looks at.

    Args:
        masks: (regions, height, width), of any size: stretched over the latent. They sum to one at every pixel.
        contexts: the text states of each region, (1, tokens, width), tokens in whole multiples of a prompt's 77.
    """

    masks: Tensor
    contexts: tuple[Tensor, ...]
    memo: dict = field(default_factory=dict)
    texts: WeakKeyDictionary = field(default_factory=WeakKeyDictionary)  # of a sampling → the regions they have

    def weights(self, tile: Tile, size: tuple[int, int], like: Tensor) -> Tensor:
        """(regions, 1, positions, 1): how much each position of an attention over (height, width) is whose.

        Args:
            tile: the part of the latent that the attention sees.
            like: gives device and dtype.
        """
        key = tile, size, like.device, like.dtype
        if key not in self.memo:
            whole = torch.nn.functional.adaptive_avg_pool2d(self.masks[None].float(), tile.latent)
            part = whole[..., tile.top:tile.top + tile.height, tile.left:tile.left + tile.width]
            small = torch.nn.functional.adaptive_avg_pool2d(part, size)[0]
            self.memo[key] = small.flatten(1)[:, None, :, None].to(like)
        return self.memo[key]

    def states(self, like: Tensor) -> list[Tensor]:
        """The contexts on the device and in the dtype of `like`."""
        key = like.device, like.dtype
        if key not in self.memo:
            self.memo[key] = [context.to(like) for context in self.contexts]
        return self.memo[key]

    def under(self, text: Tensor) -> Regions | None:
        """The regions of a conditioning whose text, the first's once, is this one now.

        Nodes that change a text copy all else: zeros are nobody's (Conditioning Zero Out), what is put behind it
        (Concat) is put behind each region's, and of anything else nobody knows what it would be in the others.

        Raises:
            SettingsError: it is something else.
        """
        first = self.contexts[0].to(text)
        if text.shape == first.shape and torch.equal(text, first):
            return self
        if not torch.count_nonzero(text):
            return None
        own, more = text[:, :first.shape[1]], text[:, first.shape[1]:]
        if not more.shape[1] % _CHUNK and own.shape == first.shape and torch.equal(own, first):
            return Regions(self.masks, tuple(torch.cat((context.to(text), more), 1) for context in self.contexts))
        raise SettingsError("the text of a conditioning was changed behind ShinyMas Scene, and attention couple cannot "
                            "tell what each region's would be. Take out what changes it (Conditioning Average, for "
                            "one), or set method to masked conditioning.")


def couple(model: ModelPatcher) -> ModelPatcher:
    """A clone that mixes the cross-attention of whatever conditioning carries regions, once however often it is asked.

    Raises:
        SettingsError: the model has no cross-attention.
    """
    if text_width(model) is None:
        raise SettingsError("attention couple needs a model with cross-attention, such as SD 1.5; this one has none. "
                            "Set method to masked conditioning.")
    clone = model.clone()
    for kind, wrapper in ((WrappersMP.CALC_COND_BATCH, _with_patches), (WrappersMP.APPLY_MODEL, _with_layout)):
        clone.remove_wrappers_with_key(kind, _KEY)
        clone.add_wrapper_with_key(kind, _KEY, wrapper)
    return clone


def text_width(model: ModelPatcher) -> int | None:
    """How wide the text states are that the model's cross-attention takes; None where it has none."""
    for name, weight in model.model_state_dict("diffusion_model.").items():
        if name.endswith("attn2.to_k.weight"):
            return weight.shape[1]
    return None


def with_regions(prompts: list[list], masks: Tensor) -> list:
    """One conditioning out of one for each region: the first's own, carrying all of them.

    Args:
        prompts: a conditioning for each region, from one text encoder: as many entries each.
        masks: (regions, height, width).
    """
    return [[entries[0][0], {**entries[0][1], _KEY: Regions(masks, tuple(states for states, _ in entries))}]
            for entries in zip(*prompts, strict=True)]


@dataclass(frozen=True)
class _Chunk:
    """Rows of a batch that belong to one conditioning."""

    regions: Regions | None
    tile: Tile

    @property
    def repeats(self) -> int:
        return len(self.regions.contexts) if self.regions else 1


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """One evaluation of the model: who of its conditionings has regions, and the latent that it is asked about.

    Args:
        chunks: (index among positive and negative, uuid) of a conditioning → its regions and its part of the latent.
        latent: (batch, channels, height, width), unscaled.
    """

    chunks: dict[tuple[int, object], _Chunk]
    latent: Tensor


def _with_patches(executor, model, conds, x_in, timestep, model_options):
    """Around ComfyUI's batching: hand the two patches along where some conditioning has regions."""
    entries = [(index, entry) for index, cond in enumerate(conds) if cond is not None for entry in cond]
    owners = {id(entry["model_conds"]["c_crossattn"]): regions for _, entry in entries if (regions := _of(entry))}
    if not owners:
        return executor(model, conds, x_in, timestep, model_options)
    latent = tuple(x_in.shape[2:])
    chunks = {(index, entry["uuid"]): _Chunk(owners.get(id(entry["model_conds"].get("c_crossattn"))),
                                             Tile.of_area(entry.get("area"), latent)) for index, entry in entries}
    options = model_options.get("transformer_options", {})
    patches = dict(options.get("patches", {}))
    # First in both lists: what others do to the context is done to each region's, and their outputs are whole again.
    patches["attn2_patch"] = [_repeat, *patches.get("attn2_patch", ())]
    patches["attn2_output_patch"] = [_add_up, *patches.get("attn2_output_patch", ())]
    options = {**options, "patches": patches, _KEY: _Evaluation(chunks, x_in)}
    return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": options})


def _of(entry: dict) -> Regions | None:
    """A conditioning's regions, None where it has none or they belong to another's text.

    To give each area its counterpart ComfyUI copies a conditioning with all that it carries, and puts the text of
    another into it.
    """
    regions, text = entry.get(_KEY), entry["model_conds"].get("c_crossattn")
    if regions is None or text is None:
        return None
    if text not in regions.texts:
        own = entry["cross_attn"].to(text.cond)
        is_own = own.shape == text.cond.shape and torch.equal(own, text.cond)
        regions.texts[text] = regions.under(entry["cross_attn"]) if is_own else None
    return regions.texts[text]


def _with_layout(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
    """Around the model: tell the patches which rows of the batch are whose, and which part of the latent they see."""
    options = transformer_options or {}
    if isinstance(options.get(_KEY), _Evaluation):
        parts = list(zip(options["cond_or_uncond"], options["uuids"], strict=True))
        options = {**options, _KEY: _layout(options[_KEY], parts, x, c_crossattn)}
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _layout(evaluation: _Evaluation, parts: list[tuple], x: Tensor, context: Tensor) -> list[_Chunk]:
    """As ComfyUI batches; row by row where something between has cut the batch or the latent into pieces."""
    chunks = [evaluation.chunks[part] for part in parts]
    if (len(parts) * evaluation.latent.shape[0] == x.shape[0]
            and all((chunk.tile.height, chunk.tile.width) == tuple(x.shape[2:]) for chunk in chunks)):
        return chunks
    every = [chunk.regions for chunk in evaluation.chunks.values() if chunk.regions]
    owners = [next((regions for regions in every if _is_of(regions, row)), None) for row in context]
    return [_Chunk(regions, tile) for regions, tile in zip(owners, find_tiles(x, evaluation.latent), strict=True)]


def _is_of(regions: Regions, row: Tensor) -> bool:
    """Whether this row's context, (tokens, width), is what a conditioning with these regions brings: the first's."""
    first = regions.states(row)[0][0]
    return row.shape[0] % first.shape[0] == 0 and torch.equal(row[:first.shape[0]], first)


def _repeat(n: Tensor, context: Tensor, value: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
    """Before the cross-attention: the rows of a prompt with regions once for each of them, each with its own context.

    Args:
        n: (rows, positions, channels).
        context, value: (rows, tokens, width).
    """
    chunks = options.get(_KEY)
    if not isinstance(chunks, list) or not any(chunk.regions for chunk in chunks):
        return n, context, value
    per_chunk = n.shape[0] // len(chunks)
    repeats = [chunk.repeats for chunk in chunks]
    options[_ROOM] = {name: options[name] for name in ("cond_or_uncond", "uuids") if name in options}
    for name, values in options[_ROOM].items():
        options[name] = _each(values, repeats)
    rows = torch.cat([part.repeat(times, 1, 1) for part, times in zip(n.split(per_chunk), repeats, strict=True)])
    widen = partial(_contexts, chunks, per_chunk)
    contexts = widen(context)
    return rows, contexts, contexts if value is context else widen(value)


def _each(values: list, repeats: list[int]) -> list:
    """A value for each repeated chunk; several chunks may share one value where a batch was cut into pieces."""
    per_value = len(repeats) / len(values)
    return [values[min(int(at / per_value), len(values) - 1)] for at, times in enumerate(repeats) for _ in range(times)]


def _contexts(chunks: list[_Chunk], per_chunk: int, context: Tensor) -> Tensor:
    """The context of every repeated row: repeated to one length, which changes no attention, as ComfyUI does."""
    parts = []
    for chunk, own in zip(chunks, context.split(per_chunk), strict=True):
        parts += [own] if chunk.regions is None else [
            states.expand(per_chunk, -1, -1) for states in chunk.regions.states(context)]
    tokens = lcm(*(part.shape[1] for part in parts))
    return torch.cat([part.repeat(1, tokens // part.shape[1], 1) for part in parts])


def _add_up(n: Tensor, options: dict) -> Tensor:
    """Behind the cross-attention: the regions' rows added up by their masks, (rows, positions, channels) as before."""
    if _ROOM not in options:
        return n
    chunks = options[_KEY]
    options.update(options.pop(_ROOM))
    per_chunk = n.shape[0] // sum(chunk.repeats for chunk in chunks)
    size = tuple(options["activations_shape"][2:])
    mixed, start = [], 0
    for chunk in chunks:
        rows = n[start:start + chunk.repeats * per_chunk].unflatten(0, (chunk.repeats, per_chunk))
        start += chunk.repeats * per_chunk
        mixed.append(rows[0] if chunk.regions is None else _mix(rows, chunk.regions.weights(chunk.tile, size, n)))
    return torch.cat(mixed)


def _mix(rows: Tensor, weights: Tensor) -> Tensor:
    """(regions, rows, positions, channels) by (regions, 1, positions, 1)."""
    total = rows[0] * weights[0]
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        total.addcmul_(row, weight)
    return total
