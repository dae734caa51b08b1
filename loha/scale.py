"""alpha / rank: how strongly a module acts at strength 1."""

from __future__ import annotations


def alpha_over_rank(alpha: float | None, rank: int) -> float:
    """The scale of a module, 1 where no alpha is stated (LyCORIS and kohya's scripts write one always, PEFT never).

    `rank` is that of the first product: LyCORIS and ComfyUI divide by `hada_w1_b`'s rows, also where the
    second product has another rank.
    """
    return 1.0 if alpha is None else alpha / rank
