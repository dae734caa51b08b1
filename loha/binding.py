"""Which module of a LoHa goes on which weight of a model, and why the others do not.

Nothing is multiplied before its shape has been found right: two rank-1 factors of 200 000 numbers
are a 3 MB file and a 160 GB product. `applied + skipped + unknown` is always the number of modules
in the file, of every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from ..text import show
from . import foreign_kinds, naming, product
from .block_weights import block_of
from .errors import BindError
from .module import BIAS_NAMES, Loha, LohaModule
from .naming import Address

_BASES = {768: "SD 1.5", 1024: "SD 2", 1280: "SDXL refiner", 2048: "SDXL"}


@dataclass(frozen=True)
class Target:
    """A weight of a model: its name in the state dict, shape (out, in, *kernel), storage dtype."""

    weight: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def is_unet(self) -> bool:
        return self.weight.startswith("diffusion_model.")

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def block(self) -> str:
        return block_of(self.weight)

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype whose range the weight's numbers have: its own, float32 for one that is quantised."""
        return self.dtype if self.dtype.is_floating_point else torch.float32


@dataclass(frozen=True)
class Bound:
    """A module with the weight that it goes on and the strength it gets there."""

    module: LohaModule | Mapping[str, Tensor]
    target: Target
    strength: float


@dataclass(frozen=True)
class Skip:
    """Why a module stays off. `asked`: because the person said so (a strength of 0), not for a fault.
    `remedy`: what to do where that is not to choose another checkpoint."""

    reason: str
    asked: bool = False
    remedy: str = ""


@dataclass(frozen=True, eq=False)
class Binding:
    """The outcome for one file and one model.

    Args:
        modules: LoHa modules that fit, by their name in the file.
        others: modules of other kinds that have a target.
        skipped: modules known to belong somewhere that are not applied.
        unknown: names that mean nothing in this model.
        file_base, model_base: base models that the two look made for, "" when nothing tells.
    """

    loha: Loha
    modules: Mapping[str, Bound]
    others: Mapping[str, Bound]
    skipped: Mapping[str, Skip]
    unknown: tuple[str, ...]
    file_base: str
    model_base: str

    @property
    def applied(self) -> int:
        return len(self.modules) + len(self.others)

    @property
    def faults(self) -> dict[str, str]:
        """What `strict` refuses: name → reason."""
        found = {name: skip.reason for name, skip in self.skipped.items() if not skip.asked}
        return found | dict.fromkeys(self.unknown, "no weight of this model has that name")

    def demand(self, *, strict: bool) -> None:
        """Refuse what must not pass in silence: nothing fits at all; with `strict`, anything that does not.

        Raises:
            BindError: says how many, why, and what the file looks made for.
        """
        faults = self.faults
        if faults and not self.applied and len(faults) * 2 >= len(self.loha):
            raise BindError(_nothing_fits(self))
        if faults and strict:
            lines = "\n".join(f"- {show(name)}: {reason}" for name, reason in list(faults.items())[:10])
            more = f"\n… and {len(faults) - 10} more" if len(faults) > 10 else ""
            raise BindError(f"strict: {len(faults)} of the file's {len(self.loha)} modules would not be applied:\n"
                            f"{lines}{more}\nTurn `strict` off to apply the others.")

    def without(self, failed: Mapping[str, Skip]) -> Binding:
        """The same with modules of `others` moved to `skipped`."""
        kept = {name: bound for name, bound in self.others.items() if name not in failed}
        return replace(self, others=kept, skipped={**self.skipped, **failed})


def bind(loha: Loha, targets: Iterable[Target], strength: Callable[[Target], float] = lambda target: 1.0, *,
         names: Mapping[str, str] | None = None, absent: Mapping[str, Skip] | None = None) -> Binding:
    """Match every module of `loha` to a weight, by name and then by shape.

    Args:
        targets: the model's weights, all of them.
        strength: strength of a weight; 0 leaves a module off, as asked.
        names: further module names → weight names, for architectures whose names `naming` does not know.
        absent: part of an address (`te1`) → why its modules stay off where the model's side is not there (no CLIP).

    Raises:
        BindError: two modules of the file name one weight.
    """
    by_weight = {target.weight: target for target in targets}
    index = naming.index(by_weight)
    file_base, model_base = _base(_widths(loha)), _base(_target_widths(by_weight.values(), index))
    modules: dict[str, Bound] = {}
    others: dict[str, Bound] = {}
    skipped = {name: Skip(reason) for name, reason in loha.refused.items()}
    unknown = []
    owners: dict[str, str] = {}

    for name, module in [*loha.modules.items(), *loha.others.items()]:
        ours = isinstance(module, LohaModule)
        where = naming.address(name)
        weight = index.get(where) or (names or {}).get(name)
        is_bias = not ours and module.keys() <= BIAS_NAMES
        if is_bias:
            # ComfyUI's trainer writes a layer's bias beside its LoHa, under the same name.
            weight = weight and weight.removesuffix("weight") + "bias"
            name = f"{name} (bias)"
        if weight not in by_weight:  # ComfyUI's map names layers that some models leave out
            skip = (absent or {}).get(where[0]) or _elsewhere(where, file_base, model_base)
            if skip:
                skipped[name] = skip
            else:
                unknown.append(name)
            continue
        if weight in owners:
            raise BindError(f"'{show(owners[weight])}' and '{show(name)}' both name the weight {weight}; a file must "
                            "hold one of them. Remove one, or save the file anew with the tool that made it.")
        owners[weight] = name
        target = by_weight[weight]
        wanted = strength(target)
        if wanted == 0:
            part = "the U-Net" if target.is_unet else "the text encoder"
            skipped[name] = Skip(f"strength 0 for {part}", asked=True)
            continue
        if ours:
            reason = _misfit(module, target)
        else:
            bias = target if is_bias else by_weight.get(f"{weight.removesuffix('weight')}bias")
            reason = foreign_kinds.misfit(module, target.shape, bias and bias.shape)
        if reason:
            made_for = f"; the file looks made for {file_base}" if file_base not in ("", model_base) else ""
            skipped[name] = Skip(reason + made_for)
        elif overflow := _overflow(module, target, wanted):
            skipped[name] = overflow
        else:
            (modules if ours else others)[name] = Bound(module, target, wanted)
    return Binding(loha, modules, others, skipped, tuple(unknown), file_base, model_base)


def _misfit(module: LohaModule, target: Target) -> str | None:
    """Why a module's shape cannot go on a weight; None when it can."""
    if not module.fits(target.shape):
        made = "×".join(map(str, module.delta_shape))
        kind = "a Tucker module of" if module.is_tucker else "a product of"
        return f"{kind} {made} does not fit the weight {'×'.join(map(str, target.shape))} of {target.weight}"
    if module.dora_scale is not None and product.dora_axis(module.dora_scale.shape, target.shape) is None:
        return (f"dora_scale {'×'.join(map(str, module.dora_scale.shape))} fits neither axis of the weight "
                f"{'×'.join(map(str, target.shape))} of {target.weight}")
    return None


def _overflow(module: LohaModule | Mapping[str, Tensor], target: Target, strength: float) -> Skip | None:
    """Why a module that fits would leave numbers in a weight that are not finite; None when it would not.

    Of other kinds only the strength is judged here.
    """
    limit, work = torch.finfo(target.compute_dtype).max, product.accumulation_dtype(target.compute_dtype)
    what = f"not finite in the weight's dtype, {target.dtype_name}"
    if abs(strength) > limit:
        return Skip(f"its strength, {strength:g}, is {what}")
    if not isinstance(module, LohaModule):
        return None
    reach = max(1.0, abs(strength))
    if module.dora_scale is not None:
        # It divides by norms, whose squares must not overflow, and which may be as small as epsilon.
        limit = min(limit, (torch.finfo(work).max / prod(target.shape)) ** 0.5)
        if not float(module.dora_scale.double().abs().max()) * reach < limit:
            return Skip(f"its dora_scale, {float(module.dora_scale.double().abs().max()):g} at most, is {what}")
    steps = module.step_ceiling * max(1.0, abs(module.scale) * reach)
    if module.ceiling * reach < limit and steps < torch.finfo(work).max:
        return None
    if not product.largest(module, 1.0, work) <= limit:
        return Skip(f"the product is {what}")
    if not product.largest(module, reach, work) <= limit:
        return Skip(f"at strength {strength:g} the product is {what}")
    return None


def _elsewhere(where: Address, file_base: str, model_base: str) -> Skip | None:
    """Reason for a name that is sound but belongs to another model; None for one that nobody knows."""
    part, _ = where
    if part in ("te2", "te3"):
        return Skip(f"for text encoder {part[2]}, which this model does not have")
    if file_base and file_base != model_base:
        return Skip(f"not in this model; the file looks made for {file_base}")
    return None


def _nothing_fits(binding: Binding) -> str:
    bases = f" It looks made for {binding.file_base}" if binding.file_base else " What it was made for cannot be told"
    model = f"; the model looks like {binding.model_base}." if binding.model_base else "; nor can what the model is."
    name, reason = next(iter(binding.faults.items()))
    remedies = {skip.remedy for skip in binding.skipped.values() if not skip.asked}
    if len(remedies) == 1 and "" not in remedies and not binding.unknown:
        return f"None of the file's {len(binding.loha)} modules can be applied: each is {reason}. {remedies.pop()}"
    return (f"None of the file's {len(binding.loha)} modules fits this model.{bases}{model} The first, '{show(name)}': "
            f"{reason}. Choose a checkpoint of the kind that the LoHa was trained on.")


def _widths(loha: Loha) -> Iterable[tuple[Address, int]]:
    """Each module's address with the number of input columns that it was made for."""
    for name, module in loha.modules.items():
        yield naming.address(name), module.delta_shape[1]
    for name, tensors in loha.others.items():
        for suffix, tensor in tensors.items():
            if suffix.removesuffix(".weight") in ("lora_down", "lora_A", "lora.down", "diff") and tensor.dim() >= 2:
                yield naming.address(name), tensor.shape[1]


def _target_widths(targets: Iterable[Target], index: Mapping[Address, str]) -> Iterable[tuple[Address, int]]:
    shapes = {target.weight: target.shape for target in targets}
    return ((where, shapes[weight][1]) for where, weight in index.items() if len(shapes[weight]) >= 2)


def _base(widths: Iterable[tuple[Address, int]]) -> str:
    """Base model by the width of the text that cross-attention reads; by the text encoders without a U-Net."""
    encoders = set()
    for (part, path), width in widths:
        if part == "unet" and path.endswith(("attn2_to_k", "attn2_to_v")):
            return _BASES.get(width, "")
        if part.startswith("te") and path.endswith(("self_attn_q_proj", "self_attn_k_proj")):
            encoders.add((part, width))
    if any(part == "te2" for part, _ in encoders):
        return "SDXL"
    return _BASES.get(max(width for _, width in encoders), "") if encoders else ""
