"""The four factors' gradients from ∂L/∂ΔW, for every module of the page's set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from suite import lycoris_peer, sets
from suite.measure import Contender, interleaved, peak_temporary
from suite.results import Case, Row
from suite.session import Session


def cases(session: Session) -> Iterator[Case]:
    device, scale = session.device, sets.ALPHA / sets.RANK
    chosen = sets.modules("302", session.quick)
    given = [tuple(factor.to(device).requires_grad_() for factor in four)
             for four in sets.factors(chosen, torch.float32)]
    generator = torch.Generator().manual_seed(2)
    # One gradient for each shape: 15 of them are far more than any cache holds.
    grads = {module.shape: torch.randn(module.shape[0], module.columns, generator=generator).to(device)
             for module in chosen}
    incoming = [grads[module.shape] for module in chosen]

    contenders = [Contender("ours", _ours(given, incoming, scale))]
    contenders += [Contender(name, _autograd(diff, given, incoming))
                   for name, diff in lycoris_peer.diff_weights(device, scale)]
    timings = interleaved(contenders, device, session.seconds)
    yield Case("gradient", f"{sets.label('302', session.quick)}, float32 factors and gradients, backward alone", [
        Row(contender.name, timings[contender.name], peak_temporary(contender, device),
            sets.bytes_to_differentiate(chosen, torch.float32)) for contender in contenders
    ])


def _ours(given: list, incoming: list[Tensor], scale: float) -> Callable[[], None]:
    from shinymas_loha.loha.kernels import Factors, gradients

    flat = [Factors(*(factor.detach() for factor in four)) for four in given]

    def run() -> None:
        for grad, four in zip(incoming, flat, strict=True):
            gradients(grad, four, scale)

    return run


def _autograd(diff: Callable, given: list, incoming: list[Tensor]) -> Callable[[], None]:
    # The edge keeps a module's graph and lets ΔW itself go.
    edges = [get_gradient_edge(diff(four)) for four in given]

    def run() -> None:
        for edge, grad, four in zip(edges, incoming, given, strict=True):
            torch.autograd.grad(edge, four, grad, retain_graph=True)

    return run
