"""A loss or gradient that is NaN or infinite: what ends the run, and what the scaler mends by itself."""

from __future__ import annotations

import math

from torch.amp import GradScaler

# A gradient that overflows fp16 at a scale this small is not the scale's fault.
_LEAST_SCALE = 2.0**-10

REMEDY = ("Lower the learning rate, choose bf16 or fp32, or look for a broken VAE (an fp16 VAE can make such "
          "latents).")


def not_finite(loss: float, gradient_norm: float, scaler: GradScaler) -> str:
    """What must end the run before the optimiser spoils the parameters, "" where nothing must.

    An overflow of fp16 gradients is the scaler's to mend: it skips the step and lowers its scale.
    """
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    mends = scaler.is_enabled() and scaler.get_scale() > _LEAST_SCALE
    return "" if math.isfinite(gradient_norm) or mends else f"the gradient's norm is {gradient_norm}"
