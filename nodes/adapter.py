"""The patch that ComfyUI's ModelPatcher carries for each weight, and calls wherever it merges."""

from __future__ import annotations

from comfy.weight_adapter import WeightAdapterBase

from ..loha import LohaModule, product


class LohaAdapter(WeightAdapterBase):
    """One module's factors, in the order of core's own LoHa adapter.

    Newer cores rebuild an adapter on another device as `type(a)(a.loaded_keys, weights)`: so all state
    is in `weights`, (w1_a, w1_b, alpha, w2_a, w2_b, t1, t2, dora_scale), and the constructor is core's.
    """

    name = "shinymas_loha"

    def __init__(self, loaded_keys: set[str], weights: tuple) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    @classmethod
    def of(cls, module: LohaModule) -> LohaAdapter:
        return cls(set(), (module.w1_a, module.w1_b, module.alpha, module.w2_a, module.w2_b,
                           module.t1, module.t2, module.dora_scale))

    def calculate_weight(self, weight, key, strength, strength_model, offset, function,
                         intermediate_dtype=None, original_weight=None):
        """Merge into `weight` (out, in, *kernel), in place, whatever its dtype, device and strides.

        `intermediate_dtype` is not used: products are accumulated in float32 and rounded once. `function`
        is core's identity: only keys that name a part of a weight carry another, and ours never do.
        """
        w1_a, w1_b, alpha, w2_a, w2_b, t1, t2, dora_scale = self.weights
        module = LohaModule(key, w1_a, w1_b, w2_a, w2_b, t1, t2, alpha, dora_scale)
        factors = product.flat_factors(module, weight.device)
        if dora_scale is not None:
            return product.merge_dora_(weight, *factors, module.scale, dora_scale, strength)
        return product.merge_(weight, *factors, module.scale * strength)
