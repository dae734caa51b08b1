"""The patch that ComfyUI's ModelPatcher carries for each weight, and calls wherever it merges."""

from __future__ import annotations

import logging
from functools import partial

from comfy.weight_adapter import WeightAdapterBase

from ..loha import kernels, product
from ..loha.factors import Factors
from ..loha.scale import alpha_over_rank

_log = logging.getLogger("shinymas-loha")


class LohaAdapter(WeightAdapterBase):
    """One module's flat factors, in the order of core's own LoHa adapter; a Tucker core is in its b already.

    Newer cores rebuild an adapter on another device as `type(a)(a.loaded_keys, weights)`: so all state
    is in `weights`, (w1_a, w1_b, alpha, w2_a, w2_b, None, None, dora_scale), and the constructor is core's.
    """

    name = "shinymas_loha"
    # Of all adapters of one LoHa on one patcher. One that a core has rebuilt does without.
    workspace: kernels.Workspace | None = None
    _has_told = False

    def __init__(self, loaded_keys: set[str], weights: tuple) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    @classmethod
    def of(cls, factors: Factors, alpha: float | None, dora_scale=None,
           workspace: kernels.Workspace | None = None) -> LohaAdapter:
        w1_a, w1_b, w2_a, w2_b = factors
        adapter = cls(set(), (w1_a, w1_b, alpha, w2_a, w2_b, None, None, dora_scale))
        adapter.workspace = workspace
        return adapter

    @property
    def factors(self) -> Factors:
        w1_a, w1_b, _, w2_a, w2_b = self.weights[:5]
        return Factors(w1_a, w1_b, w2_a, w2_b)

    @property
    def scale(self) -> float:
        """alpha / rank, or 1 without an alpha."""
        return alpha_over_rank(self.weights[2], self.weights[1].shape[0])

    @property
    def is_additive(self) -> bool:
        """Whether it only adds to a weight; DoRA re-scales what it meets."""
        return self.weights[7] is None

    def calculate_weight(self, weight, key, strength, strength_model, offset, function,
                         intermediate_dtype=None, original_weight=None):
        """Merge into `weight` (out, in, *kernel), in place, whatever its dtype, device and strides.

        `intermediate_dtype` is not used: products are accumulated in float32 and rounded once. `function`
        is core's identity: only keys that name a part of a weight carry another, and ours never do.
        """
        if self.is_additive:
            kernels.merge_(weight, self.factors, self.scale * strength, self.workspace)
            return weight
        held = partial(self._tell_of_held, key)
        return product.merge_dora_(weight, self.factors, self.scale, self.weights[7], strength, held)

    def _tell_of_held(self, key: str, count: int) -> None:
        """Once: a weight that is merged as it is used is merged at every step."""
        if not self._has_told:
            self._has_told = True
            _log.warning("%s: the DoRA of a LoHa divides by means that are next to nothing there; %d of its numbers "
                         "grew beyond float16 and were held there. If pictures are noise, that is why: such a file "
                         "needs the checkpoint that it was trained on.", key, count)
