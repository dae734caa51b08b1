"""One training step, forward and backward: our network beside LyCORIS' modules on the same small models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from suite.measure import Contender, interleaved, peak_temporary
from suite.results import Case, Row
from suite.session import Session
from suite.small_models import small_models

_CAPTIONS = ["Kazano Hiori, 1girl, smile", "Sakuragi Mano, 1girl, outdoors"]


def cases(session: Session) -> Iterator[Case]:
    from shinymas_loha.loha.training.network.loha_network import LohaNetwork
    from shinymas_loha.loha.training.objective.loss import Step
    from shinymas_loha.loha.training.objective.noise import Draw
    from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings

    device = session.device
    widths, pixels = ((32, 64), 64) if session.quick else ((320, 640), 128)
    settings = TrainingSettings(network_rank=16, mixed_precision="fp32", max_token_length=75)
    generator = torch.Generator().manual_seed(4)
    latents, noise, posterior = (
        torch.randn(2, 4, pixels // 8, pixels // 8, generator=generator).to(device) for _ in range(3))
    drawn = Draw(noise, posterior, torch.tensor([37, 811], device=device))

    def stepping(models, parameters: list[nn.Parameter]) -> Callable[[], None]:
        step = Step(models, settings, "fp32")

        def run() -> None:
            step.losses(latents, drawn, _CAPTIONS).mean().backward()
            for parameter in parameters:
                parameter.grad = None

        return run

    ours, theirs = (small_models(widths, 768, device) for _ in range(2))
    network = LohaNetwork(ours, settings)
    peers = _lycoris(network, theirs.layers, device)
    with network.attached():
        contenders = [
            Contender("ours", stepping(ours, list(network.parameters()))),
            Contender("LyCORIS", stepping(theirs, [one for peer in peers for one in peer.parameters()])),
        ]
        timings = interleaved(contenders, device, session.seconds)
        rows = [Row(one.name, timings[one.name], peak_temporary(one, device)) for one in contenders]
    yield Case("training step", f"{len(peers)} modules, rank 16, U-Net of two levels {widths}, two CLIP layers, "
                                f"batch 2 at {pixels} px, float32, no optimiser", rows)


def _lycoris(network: nn.Module, layers: Mapping[str, nn.Module], device: torch.device) -> list[nn.Module]:
    """LyCORIS' modules, of its fastest backend, on these layers in place of ours."""
    from lycoris.modules.loha import LohaModule

    made = []
    for name, factors in network.factors.items():
        module = LohaModule(name, layers[name], 1.0, factors.rank, factors.alpha).to(device)
        module.apply_to()
        made.append(module)
    return made
