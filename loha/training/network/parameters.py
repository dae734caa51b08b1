"""The trained parameters of one module: how they begin, and how they become flat factors and a file."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ....text import show
from ...errors import SettingsError
from ...factors import Factors, through_core
from ...module import LohaModule
from ...scale import alpha_over_rank
from ..data import seed_for

# Standard deviations of w1_a, w1_b, w2_b; w2_a is zero, so that a run begins at ΔW = 0.
# LyCORIS modules/loha.py since commit df3eb1f (2023-07-08), and before it.
_SPREADS = {"lycoris-2023-07": (0.1, 1.0, 1.0), "lycoris-2023-03": (1.0, 1.0, 0.01)}
_CORE_SPREAD = 0.1


class LohaParameters(nn.Module):
    """One module's float32 factors, under their names in a file; shapes as in `LohaModule`.

    Args:
        shape: of the weight, (out, in) or (out, in, kernel, kernel).
        tucker: with cores (rank, rank, kernel, kernel).
    """

    def __init__(self, shape: torch.Size, rank: int, alpha: float, tucker: bool = False) -> None:
        super().__init__()
        self.rank = rank
        self.alpha = alpha
        outputs, columns = shape[0], shape[1] if tucker else shape[1:].numel()
        kernel = tuple(shape[2:])
        for side in ("w1", "w2"):
            left = torch.zeros((rank, outputs) if tucker else (outputs, rank))
            setattr(self, f"hada_{side}_a", nn.Parameter(left))
            setattr(self, f"hada_{side}_b", nn.Parameter(torch.zeros(rank, columns)))
        self.hada_t1 = nn.Parameter(torch.zeros(rank, rank, *kernel)) if tucker else None
        self.hada_t2 = nn.Parameter(torch.zeros(rank, rank, *kernel)) if tucker else None

        # What `limit_norm` multiplies by, once it has: apart from the factors, so that their gradients shrink with it.
        self.register_buffer("scalar", None)

    @property
    def scale(self) -> float:
        return alpha_over_rank(self.alpha, self.rank)

    @property
    def stamp(self) -> tuple[int, ...]:
        """Another one when a factor is another tensor, or was changed in a way that torch knows of."""
        held = self._parameters  # not by attribute, which takes longer: this is asked for a thousand times a step
        a1, b1, a2, b2 = held["hada_w1_a"], held["hada_w1_b"], held["hada_w2_a"], held["hada_w2_b"]
        return id(a1), a1._version, id(b1), b1._version, id(a2), a2._version, id(b2), b2._version

    def draw(self, initialisation: str, seed: int, name: str) -> None:
        """First values, from the seed and the module's name alone."""
        generator = torch.Generator().manual_seed(seed_for(seed, "first factors", name))
        spread_1a, spread_1b, spread_2b = _SPREADS[initialisation]
        with torch.no_grad():
            for factor, spread in ((self.hada_w1_a, spread_1a), (self.hada_w1_b, spread_1b),
                                   (self.hada_w2_b, spread_2b), (self.hada_t1, _CORE_SPREAD),
                                   (self.hada_t2, _CORE_SPREAD)):
                if factor is not None:
                    factor.copy_(torch.randn(factor.shape, generator=generator) * spread)
            self.hada_w2_a.zero_()

    def take(self, module: LohaModule, name: str) -> None:
        """Go on from `module`, of the same or a smaller rank, with its ΔW unchanged.

        Call it after `draw`. New ranks keep what was drawn, but both their outputs and what feeds old
        ranks from them are zero; a difference of scale goes into w1_a.

        Raises:
            SettingsError: another shape or layout, or a larger rank.
        """
        tucker = self.hada_t1 is not None
        old1, old2 = module.w1_b.shape[0], module.w2_b.shape[0]
        if module.dora_scale is not None or module.is_tucker != tucker:
            kind = "DoRA" if module.dora_scale is not None else module.layout
            raise SettingsError(f"{show(name)}: a {kind} module cannot be gone on from; the run trains "
                                f"{'tucker' if tucker else 'flat'} ones. Change use_tucker, or the file.")
        if max(old1, old2) > self.rank:
            raise SettingsError(f"{show(name)}: rank {max(old1, old2)} in the file to go on from, {self.rank} in the "
                                f"settings: set the rank to {max(old1, old2)} or more")
        mine, theirs = (self.hada_w1_a.shape[int(tucker)], self.hada_w1_b.shape[1]), module.delta_shape[:2]
        if mine != theirs:
            raise SettingsError(f"{show(name)}: the file to go on from was made for a weight {theirs}, "
                                f"this model has {mine}")
        with torch.no_grad():
            for a, b, core, old_a, old_b, old_core, old in (
                (self.hada_w1_a, self.hada_w1_b, self.hada_t1, module.w1_a, module.w1_b, module.t1, old1),
                (self.hada_w2_a, self.hada_w2_b, self.hada_t2, module.w2_a, module.w2_b, module.t2, old2),
            ):
                a.zero_()
                (a[:old] if tucker else a[:, :old]).copy_(old_a)
                b[:old].copy_(old_b)
                if core is not None:
                    core[:old].zero_()
                    core[:old, :old].copy_(old_core)
            self.hada_w1_a.mul_(module.scale / self.scale)

    def flat(self, rank_mask: Tensor | None) -> Factors:
        """The flat factors, differentiable, in float32.

        Args:
            rank_mask: (rank,) numbers of rank dropout that multiply w1's ranks, or None.
        """
        w1_a, w1_b, w2_a, w2_b = self._scaled_w1_a(), self.hada_w1_b, self.hada_w2_a, self.hada_w2_b
        if self.hada_t1 is not None:
            w1_a, w1_b = w1_a.t(), through_core(self.hada_t1, w1_b)
            w2_a, w2_b = w2_a.t(), through_core(self.hada_t2, w2_b)
        return Factors(w1_a if rank_mask is None else w1_a * rank_mask, w1_b, w2_a, w2_b)

    @torch.no_grad()
    def limit_norm(self, most: float) -> None:
        """Scale ΔW down to the Frobenius norm `most` where it is larger (LyCORIS, apply_max_norm), without a wait."""
        w1_a, w1_b, w2_a, w2_b = self.flat(None)
        norm = ((w1_a @ w1_b) * (w2_a @ w2_b)).norm() * self.scale
        self.scalar *= (most / norm).clamp(max=1.0)  # of a ΔW of zero: infinity, so 1

    def _scaled_w1_a(self) -> Tensor:
        return self.hada_w1_a if self.scalar is None else self.hada_w1_a * self.scalar

    def module(self, name: str) -> LohaModule:
        """A copy on the CPU, for a file."""
        copies = {
            key.removeprefix("hada_"): parameter.detach().to("cpu", copy=True)
            for key, parameter in self.named_parameters()
        }
        copies["w1_a"] = self._scaled_w1_a().detach().to("cpu", copy=True)
        return LohaModule(name, **copies, alpha=self.alpha)

