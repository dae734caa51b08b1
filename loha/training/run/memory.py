"""What a run needs for certain, said before it starts. Lower bounds only: a run that fits is never refused."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from ...errors import LohaError
from ..data import TrainingData

# Bytes of a picture's pixel in a cache: mean and deviation, 4 channels of float32, an eighth of each side.
_LATENT_BYTES = 2 * 4 * 4 / 64


class MemoryLacking(LohaError):
    """The run cannot fit into memory; the text says what is needed, what is free, what to lower."""


def optimiser_bytes(optimiser: Optimizer, parameters: Iterable[Tensor]) -> int:
    """Bytes that a step adds on the parameters' device: gradients, and the two moments of Adam and AdamW.

    A resumed optimiser has its moments already. Other optimisers' states are not counted, nor activations.
    """
    moments = 2 if isinstance(optimiser, (Adam, AdamW)) else 0
    return sum(
        parameter.numel() * parameter.element_size() * (1 + (moments if parameter not in optimiser.state else 0))
        for parameter in parameters
    )


def latent_bytes(data: TrainingData, whole_epochs: int = 1, processes: int = 1) -> int:
    """Bytes of the latents that stay in one process's memory, each picture once: mirrored ones may come on top.

    Args:
        whole_epochs: still to train; without any not all pictures are seen.
    """
    caches = data.options.latent_cache == "memory" and whole_epochs > 0
    sizes = data.index.buckets.astype("int64").tolist() if caches else ()
    pixels = sum(width * height for picture, (width, height) in enumerate(sizes) if data.showings(picture))
    validation = latent_bytes(data.validation) if data.validation else 0
    return int(_LATENT_BYTES * pixels) // processes + validation


def require(what: str, needed: int, free: float, advice: str) -> None:
    """Raise `MemoryLacking` where `needed` bytes are more than are free."""
    if needed > free:
        raise MemoryLacking(f"not enough memory: {what} take {_shown(needed)} at least, and {_shown(free)} is free. "
                            f"{advice}")


def _shown(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
