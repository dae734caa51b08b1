"""ΔW added to every weight of a set, where the weights lie: ours, ComfyUI's core, LyCORIS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from suite import lycoris_peer, sets
from suite.measure import Contender, interleaved, kernel_launches, peak_temporary
from suite.results import Case, Row
from suite.session import Session

FACTORS = torch.float16
# Time on a GPU is short, and making a case takes longer than measuring it: what matters first, then what differs.
_ON_CUDA = (("302", torch.float16), ("302", torch.float32), ("354", torch.float16), ("264", torch.float16))


def cases(session: Session) -> Iterator[Case]:
    cuda = session.device.type == "cuda"
    for which, dtype in _ON_CUDA if cuda else product(sets.SETS, (torch.float32, torch.float16)):
        name = str(dtype).removeprefix("torch.")
        yield _case(session, sets.modules(which, session.quick), dtype,
                    f"{sets.label(which, session.quick)} ({sets.SETS[which]}), {name} weights, float16 factors")


@torch.inference_mode()  # as in ComfyUI's nodes
def _case(session: Session, chosen: list[sets.Module], dtype: torch.dtype, title: str) -> Case:
    device = session.device
    targets = sets.weights(chosen, dtype, device)
    given = sets.factors(chosen, FACTORS)
    contenders = [*_ours(targets, given, device), _core(targets, given), *_lycoris(targets, given, device)]
    timings = interleaved(contenders, device, session.seconds)
    moved = sets.bytes_to_merge(chosen, dtype, FACTORS)
    cuda = device.type == "cuda"
    return Case("merge", title, [
        Row(contender.name, timings[contender.name], peak_temporary(contender, device), moved,
            kernel_launches(contender) if cuda else None)
        for contender in contenders
    ])


def _ours(targets: list[Tensor], given: list, device: torch.device) -> list[Contender]:
    from shinymas_loha.loha.kernels import ROUTE_VARIABLE, Factors, Group, PackedFactors
    from shinymas_loha.patcher.adapter import LohaAdapter

    flat = [Factors(*four) for four in given]
    if device.type != "cuda":
        return [Contender("ours", _through_adapters(targets, [LohaAdapter.of(four, sets.ALPHA) for four in flat]))]
    packed = PackedFactors(flat, device)
    group, without_triton = Group(targets, packed), Group(targets, packed)
    scales = [sets.ALPHA / sets.RANK] * len(targets)
    os.environ[ROUTE_VARIABLE] = "grouped-torch"
    without_triton.merge(scales)  # a group keeps to the routes of its first merge
    del os.environ[ROUTE_VARIABLE]
    adapters = [LohaAdapter.of(four, sets.ALPHA) for four in packed]
    return [
        Contender("ours, grouped", lambda: group.merge(scales)),
        Contender("ours, grouped, no Triton", lambda: without_triton.merge(scales)),
        Contender("ours, weight by weight", _through_adapters(targets, adapters)),
    ]


def _core(targets: list[Tensor], given: list) -> Contender:
    """ComfyUI keeps the factors where the file was read to: on the CPU."""
    from comfy.weight_adapter import LoHaAdapter

    adapters = [LoHaAdapter(set(), (w1_a, w1_b, sets.ALPHA, w2_a, w2_b, None, None, None))
                for w1_a, w1_b, w2_a, w2_b in given]
    return Contender("ComfyUI core", _through_adapters(targets, adapters))


def _through_adapters(targets: list[Tensor], adapters: list) -> Callable[[], None]:
    def run() -> None:
        for target, adapter in zip(targets, adapters, strict=True):
            adapter.calculate_weight(target, "", 1.0, 1.0, None, lambda change: change, torch.float32)

    return run


def _lycoris(targets: list[Tensor], given: list, device: torch.device) -> list[Contender]:
    on_device = [tuple(factor.to(device, torch.float32) for factor in four) for four in given]

    def merging(diff_weight: Callable) -> Callable[[], None]:
        def run() -> None:
            for target, four in zip(targets, on_device, strict=True):
                target += diff_weight(four).view(target.shape).to(target.dtype)

        return run

    return [Contender(name, merging(diff)) for name, diff in lycoris_peer.diff_weights(device, sets.ALPHA / sets.RANK)]
