"""Random numbers that depend on what they are for, not on what was drawn before.

Resuming in the middle of an epoch then needs no stored state, and the order in which workers or
processes ask changes nothing.
"""

from __future__ import annotations

import random
from hashlib import sha256


def seed_for(seed: int, *purpose: str | int) -> int:
    """A seed in 0 … 2⁶³−1 for one purpose, such as ("flip", epoch, picture).

    A hash of the text, so it is the same on every platform and in every Python. Fits
    `torch.Generator.manual_seed`.
    """
    digest = sha256("/".join(map(str, (seed, *purpose))).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def stream(seed: int, *purpose: str | int) -> random.Random:
    """A generator of its own for one purpose."""
    return random.Random(seed_for(seed, *purpose))
