"""The one currency: an immutable LoHa, as read, trained, applied and saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import Any

from torch import Tensor

from .factors import Factors
from .scale import alpha_over_rank

# In the order in which files, adapters and kernels pass them around.
FACTOR_NAMES = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
CORE_NAMES = ("hada_t1", "hada_t2")
# These change a layer's bias, not its weight, so they may stand beside a LoHa: ComfyUI's trainer writes that.
BIAS_NAMES = frozenset(("diff_b", "b_norm"))


@dataclass(frozen=True, eq=False)
class LohaModule:
    """One module's Hadamard product, `ΔW = (w1_a·w1_b) ∘ (w2_a·w2_b) · alpha / rank`.

    Flat layout: `*_a` (out, rank), `*_b` (rank, in·kernel). Tucker layout: `*_a` (rank, out),
    `*_b` (rank, in), cores `t1`, `t2` (rank, rank, *kernel). The ranks of w1 and w2 may differ;
    the scale takes w1's. `alpha` None means that the file states none: scale 1.
    `dora_scale` has one dimension of length out, or of length in (then at position 1).
    """

    name: str
    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    t1: Tensor | None = None
    t2: Tensor | None = None
    alpha: float | None = None
    dora_scale: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.w1_b.shape[0]

    @cached_property
    def ranks(self) -> tuple[int, int]:
        """Of both products."""
        return self.w1_b.shape[0], self.w2_b.shape[0]

    @property
    def scale(self) -> float:
        """alpha / rank, or 1 without an alpha."""
        return alpha_over_rank(self.alpha, self.rank)

    @property
    def factors(self) -> Factors:
        """The four as they are stored; flat where the module is, see `product.flat_factors` for a Tucker one."""
        return Factors(self.w1_a, self.w1_b, self.w2_a, self.w2_b)

    @property
    def is_tucker(self) -> bool:
        return self.t1 is not None

    @property
    def kernel(self) -> tuple[int, ...]:
        """Kernel of a Tucker module; () for a flat one, whose file does not tell."""
        return () if self.t1 is None else tuple(self.t1.shape[2:])

    @property
    def delta_shape(self) -> tuple[int, ...]:
        """(out, in·kernel) of a flat module, (out, in, *kernel) of a Tucker one."""
        if self.t1 is None:
            return (self.w1_a.shape[0], self.w1_b.shape[1])
        return (self.w1_a.shape[1], self.w1_b.shape[1], *self.kernel)

    @property
    def layout(self) -> str:
        return ("tucker" if self.is_tucker else "flat") + ("+dora" if self.dora_scale is not None else "")

    @cached_property
    def memo(self) -> dict[str, Any]:
        """What was computed of the module, kept as long as it: by name."""
        return {}

    @property
    def ceiling(self) -> float:
        """An upper bound of |ΔW| that needs no product: from the largest number of each tensor."""
        return abs(self.scale) * prod(self._peaks)

    @property
    def step_ceiling(self) -> float:
        """The same of every number on the way to ΔW, in whatever order factors and cores are multiplied."""
        return prod(max(1.0, peak) for peak in self._peaks)

    @cached_property
    def _peaks(self) -> tuple[float, ...]:
        """The largest number of each tensor; of those that are summed over a rank, that many times."""
        found = []
        for a, b, core in ((self.w1_a, self.w1_b, self.t1), (self.w2_a, self.w2_b, self.t2)):
            found += [_largest(a), b.shape[0] * _largest(b)]
            if core is not None:
                found.append(core.shape[0] * _largest(core))
        return tuple(found)

    def tensors(self) -> dict[str, Tensor]:
        """The module's tensors under their names in a file, alpha apart."""
        named = {
            "hada_w1_a": self.w1_a, "hada_w1_b": self.w1_b, "hada_w2_a": self.w2_a, "hada_w2_b": self.w2_b,
            "hada_t1": self.t1, "hada_t2": self.t2, "dora_scale": self.dora_scale,
        }
        return {suffix: tensor for suffix, tensor in named.items() if tensor is not None}

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether ΔW has exactly this weight's shape, a flat one spread over its kernel."""
        if self.is_tucker:
            return self.delta_shape == tuple(shape)
        return len(shape) >= 2 and self.delta_shape == (shape[0], prod(shape[1:]))


@dataclass(frozen=True)
class Source:
    """Where a LoHa was read from. `(path, size, mtime_ns)` is its stamp."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, eq=False)
class Loha:
    """A validated LoHa file, or a trained one.

    Args:
        modules: module name as in the file → its factors.
        others: modules of other kinds (LoRA, LoKr, diff …), name → suffix → tensor, untouched.
        refused: modules that cannot be used whatever the model, name → reason.
        metadata: the file's `__metadata__`, strings only.
        source: None for one that was never in a file.
        notes: what a person should know of the file, one sentence each.
        doubts: what had to be guessed; `strict` refuses it.
    """

    modules: Mapping[str, LohaModule]
    others: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    source: Source | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("modules", "others", "refused", "metadata"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """What was made of the file, such as its factors on a device, kept as long as it."""
        return {}

    def __len__(self) -> int:
        """Number of modules of every kind."""
        return len(self.modules) + len(self.others) + len(self.refused)


def _largest(tensor: Tensor) -> float:
    wide = tensor if tensor.element_size() > 1 else tensor.float()  # fp8 has no reductions of its own
    low, high = wide.aminmax()
    return max(-float(low), float(high))
