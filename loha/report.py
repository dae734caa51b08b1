"""What a file holds and what became of it, one fact a line, `key: value`."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite

import torch

from ..text import show
from .binding import Binding
from .block_weights import BLOCKS
from .kernels import Route, choose
from .module import Loha, LohaModule
from .product import squared_norms

_BAR = 24
_TOP_TAGS = 20


def file_lines(loha: Loha) -> list[str]:
    """The facts of a file that need no model: its name, kinds, ranks, alphas, tags, notes; put together once."""
    if "file lines" not in loha.memo:
        loha.memo["file lines"] = tuple(_file_lines(loha))
    return list(loha.memo["file lines"])


def _file_lines(loha: Loha) -> list[str]:
    lines = [f"file: {show(os.path.basename(loha.source.path))}"] if loha.source else []
    lines += kind_lines(loha)
    tags = top_tags(loha.metadata)
    if tags:
        lines.append("top tags: " + ", ".join(f"{show(tag)} {count}" for tag, count in tags))
    return lines + [f"note: {note}" for note in (*loha.doubts, *loha.notes)]


def kind_lines(loha: Loha) -> list[str]:
    """Kinds, ranks and alphas, each with the number of modules."""
    kinds = Counter(f"LoHa {module.layout}" for module in loha.modules.values())
    kinds.update(map(kind_of, loha.others.values()))
    lines = [f"kinds: {_counts(kinds)}"]
    if loha.modules:
        lines.append(f"ranks: {_counts(Counter(map(_rank, loha.modules.values())))}")
        lines.append(f"alphas: {_counts(Counter(map(_alpha, loha.modules.values())))}")
    return lines


def unusable_lines(loha: Loha, said: str = "unusable") -> list[str]:
    """Every reason for modules that cannot be used whatever the model, with examples."""
    reasons = defaultdict(list)
    for name, reason in loha.refused.items():
        reasons[reason].append(name)
    return [_left_off(reason, names, said) for reason, names in reasons.items()]


def hash_lines(loha: Loha) -> list[str]:
    """What nobody reads, but other tools look a file up by: the end of a report."""
    if not loha.source:
        return []
    return [f"sha256: {loha.source.sha256}", f"short hash: {loha.source.sha256[:10]}"]


def binding_lines(binding: Binding) -> list[str]:
    """The counts first, then every reason for a module left off, the base models, and the file."""
    return [
        f"modules: {len(binding.loha)}", f"applied: {binding.applied}", f"skipped: {len(binding.skipped)}",
        f"unknown: {len(binding.unknown)}", *left_off_lines(binding),
        f"made for: {binding.file_base or 'cannot be told'}", f"model: {binding.model_base or 'cannot be told'}",
        *file_lines(binding.loha),
    ]


def left_off_lines(binding: Binding, *, faults: bool = False) -> list[str]:
    """Every reason for a module left off, with examples; with `faults` what a person asked for is passed over."""
    return skipped_lines(binding, faults=faults) + unknown_lines(binding)


def skipped_lines(binding: Binding, *, faults: bool = False) -> list[str]:
    """The same of the modules that the model has a place for."""
    reasons = defaultdict(list)
    for name, skip in binding.skipped.items():
        if not (faults and skip.asked):
            reasons[skip.reason].append(name)
    # A reason that stands alone can say which weight; many share a line.
    return [_left_off(str(binding.skipped[names[0]]) if len(names) == 1 else reason, names)
            for reason, names in reasons.items()]


def unknown_lines(binding: Binding) -> list[str]:
    """The same of the others."""
    return [_left_off("no weight of this model has that name", binding.unknown)] if binding.unknown else []


def block_norms(binding: Binding, device: torch.device) -> dict[str, float]:
    """‖ΔW‖ of each block at strength 1, LoHa modules only, in the order of the blocks.

    Computed on `device`, once for each module.
    """
    bounds = binding.modules.values()
    squares = squared_norms([bound.module for bound in bounds], device)
    return roots_by_block((bound.target.block, square) for bound, square in zip(bounds, squares, strict=True))


def roots_by_block(squares: Iterable[tuple[str | None, float]]) -> dict[str, float]:
    """The roots of the sums of each block, in the order of the blocks; other names than theirs do not count."""
    sums: Counter[str | None] = Counter()
    for block, square in squares:
        sums[block] += square
    return {block: sums[block] ** 0.5 for block in BLOCKS if block in sums}


def norm_lines(norms: Mapping[str, float]) -> list[str]:
    """`block_norms`, each with a bar that shows their proportion."""
    unit = max(filter(isfinite, norms.values()), default=0.0) / _BAR or 1.0
    return [f"norm {block}: " + (f"{norm:.4g} {'█' * round(norm / unit)}".rstrip() if isfinite(norm)
                                 else "too large to draw") for block, norm in norms.items()]


def route_lines(binding: Binding, device: torch.device, dtype: torch.dtype) -> list[str]:
    """How many modules go which way where weights are merged one by one, on `device` in `dtype`."""
    kinds = Counter((bound.module.dora_scale is not None, *bound.module.ranks) for bound in binding.modules.values())
    routes: Counter[Route] = Counter()
    for kind, count in kinds.items():
        routes[_route(*kind, device, dtype, grouped=False)] += count
    return [f"route: {route} × {count}" for route, count in routes.most_common()]


def module_route(module: LohaModule, device: torch.device, dtype: torch.dtype, *, grouped: bool = False) -> Route:
    """The route of a module on a contiguous weight."""
    return _route(module.dora_scale is not None, *module.ranks, device, dtype, grouped=grouped)


def _route(is_dora: bool, rank1: int, rank2: int, device: torch.device, dtype: torch.dtype, *, grouped: bool) -> Route:
    if is_dora:
        return Route("reference", "DoRA re-scales whole rows or columns")
    return choose(torch.empty((8, 8), dtype=dtype, device=device), (rank1, rank2), grouped=grouped)


def kind_of(tensors: Iterable[str]) -> str:
    """What another tool's module is, by the names of its tensors."""
    suffixes = " ".join(tensors)
    marks = (("lokr_", "LoKr"), ("lora_mid", "LoCon"), ("lora", "LoRA"), ("diff", "full difference"),
             ("set_weight", "replaced weight"), ("_norm", "norm difference"), ("oft", "OFT"), ("a1.", "GLoRA"))
    return next((kind for mark, kind in marks if mark in suffixes), "unknown kind")


def top_tags(metadata: dict[str, str]) -> list[tuple[str, int]]:
    """The most frequent tags of `ss_tag_frequency` (folder → tag → count), over all folders; [] if unusable."""
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
        total: Counter[str] = Counter()
        for tags in folders.values():
            total.update({str(tag).strip(): int(count) for tag, count in tags.items()})
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return []
    return sorted(total.items(), key=lambda entry: (-entry[1], entry[0]))[:_TOP_TAGS]


def _rank(module: LohaModule) -> str:
    return "/".join(map(str, dict.fromkeys(module.ranks)))


def _alpha(module: LohaModule) -> str:
    return "none" if module.alpha is None else f"{module.alpha:g}"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{value} × {count}" for value, count in counter.most_common(8)) + (
        f", and {len(counter) - 8} more" if len(counter) > 8 else "")


def _left_off(reason: str, names: Sequence[str], said: str = "left off") -> str:
    examples = ", ".join(show(name) for name in names[:3]) + (", …" if len(names) > 3 else "")
    return f"{said} {len(names)}: {reason} ({examples})"
