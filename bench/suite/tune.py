"""Other tiles for the merge kernel, over the page's 302 weights: which one is fastest on this GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch

from suite import sets
from suite.measure import Contender, interleaved
from suite.results import Case, Row
from suite.session import Session

# (rows, columns, warps); the part of the rank multiplied at once stays as it is.
_SHAPES = [(32, 64, 4), (32, 128, 4), (64, 64, 4), (64, 128, 4), (64, 128, 8), (64, 256, 8), (128, 64, 4), (128, 64, 8),
           (128, 128, 8), (32, 256, 4), (32, 256, 8), (16, 256, 4), (16, 512, 8)]
_FACTORS = torch.float16


def cases(session: Session) -> Iterator[Case]:
    """A case for each dtype of weights; nothing where Triton does not run."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if session.device.type != "cuda" and not interpreted:
        print("tiles need CUDA, or TRITON_INTERPRET=1 for a trial")
        return
    chosen = sets.modules("302", session.quick)
    if interpreted:  # milliseconds a tile
        chosen = sorted(chosen, key=lambda module: module.shape.numel())[:1]
    for dtype in (torch.float16, torch.float32):
        yield _case(session, chosen, dtype, _SHAPES[:3] if interpreted else _SHAPES)


@torch.inference_mode()
def _case(session: Session, chosen: list[sets.Module], dtype: torch.dtype, shapes: list[tuple[int, int, int]]) -> Case:
    from shinymas_loha.loha.kernels import Factors, PackedFactors
    from shinymas_loha.loha.kernels.merging.triton import Table, Tile, tile_for

    device = session.device
    bases = sets.weights(chosen, dtype, device)
    outs = [torch.empty_like(base) for base in bases]
    factors = list(PackedFactors([Factors(*four) for four in sets.factors(chosen, _FACTORS)], device))
    scales = torch.full((len(chosen),), sets.ALPHA / sets.RANK, device=device)
    own = tile_for(_FACTORS, 16)
    contenders = [Contender(f"ours, {_named(own)}", _merging(Table(outs, bases, factors), scales))]
    contenders[0].run()
    truth = [out.clone() for out in outs]
    failed = []
    for rows, columns, warps in shapes:
        tile = Tile(rows, columns, own.rank_step, warps)
        if tile == own:
            continue
        try:
            one = Contender(_named(tile), _merging(Table(outs, bases, factors, tile=tile), scales))
            one.run()
        except Exception as error:  # a tile may ask for more registers or shared memory than there are
            failed.append(f"{_named(tile)} fails: {type(error).__name__}")
            continue
        contenders.append(Contender(one.name + _difference(outs, truth), one.run))
    timings = interleaved(contenders, device, session.seconds)
    moved = sets.bytes_to_merge(chosen, dtype, _FACTORS)
    rows = [Row(one.name, timings[one.name], moved=moved) for one in contenders]
    name = str(dtype).removeprefix("torch.")
    return Case("tiles", f"{len(chosen)} of 302 modules, {name} weights, float16 factors, one launch",
                [rows[0], *sorted(rows[1:], key=lambda row: row.timing.median)], "; ".join(failed))


def _difference(outs: list[torch.Tensor], truth: list[torch.Tensor]) -> str:
    if all(map(torch.equal, outs, truth)):
        return ""
    apart = max(float((out.float() - true.float()).norm() / true.float().norm())
                for out, true in zip(outs, truth, strict=True))
    return f", apart by {apart:.0e}"


def _named(tile) -> str:
    return f"{tile.rows} × {tile.columns}, {tile.warps} warps"


def _merging(table, scales: torch.Tensor):
    return lambda: table.merge(scales)
