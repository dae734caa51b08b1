"""The whole way through ComfyUI's ModelPatcher: copy in float32, adapter, rounded back to the weight's dtype."""

from __future__ import annotations

from collections.abc import Iterator

import sets
import torch
from measure import Contender, interleaved, peak_temporary
from results import Case, Row
from session import Session


def cases(session: Session) -> Iterator[Case]:
    for dtype in (torch.float32, torch.float16):
        name = str(dtype).removeprefix("torch.")
        yield _case(session, sets.modules("302", session.quick), dtype, f"302 modules, {name} weights, float16 factors")


@torch.inference_mode()  # as in ComfyUI's nodes
def _case(session: Session, chosen: list[sets.Module], dtype: torch.dtype, title: str) -> Case:
    from comfy.model_patcher import ModelPatcher
    from comfy.weight_adapter import LoHaAdapter
    from shinymas_loha.loha.kernels import Factors, PackedFactors
    from shinymas_loha.nodes.adapter import LohaAdapter

    model = _model(chosen, dtype, session.device)
    given = sets.factors(chosen, torch.float16)
    ours = [Factors(*four) for four in given]
    if session.device.type == "cuda":
        ours = PackedFactors(ours, session.device).modules
    adapters = {
        "ours": [LohaAdapter.of(four, sets.ALPHA) for four in ours],
        "ComfyUI core": [LoHaAdapter(set(), (w1_a, w1_b, sets.ALPHA, w2_a, w2_b, None, None, None))
                         for w1_a, w1_b, w2_a, w2_b in given],
    }
    contenders = []
    for name, made in adapters.items():
        patcher = ModelPatcher(model, session.device, torch.device("cpu"))
        patcher.add_patches({module.weight: adapter for module, adapter in zip(chosen, made, strict=True)}, 1.0)
        contenders.append(_contender(name, patcher, session.device))
    timings = interleaved(contenders, session.device, session.seconds)
    # The patched weights themselves, all of them, are no temporaries.
    results = sum(module.shape.numel() * dtype.itemsize for module in chosen)
    return Case("patch", title, [
        Row(contender.name, timings[contender.name], peak_temporary(contender, session.device) - results)
        for contender in contenders
    ])


def _contender(name: str, patcher, device: torch.device) -> Contender:
    def run() -> None:
        for weight in patcher.patches:
            patcher.patch_weight_to_device(weight, device)

    return Contender(name, run, lambda: patcher.unpatch_model(device))


def _model(chosen: list[sets.Module], dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
    """A model that has these weights under ComfyUI's names and nothing else."""
    model = torch.nn.Module()
    for module, tensor in zip(chosen, sets.weights(chosen, dtype, device), strict=True):
        *path, last = module.weight.split(".")
        place = model
        for part in path:
            if part not in dict(place.named_children()):
                place.add_module(part, torch.nn.Module())
            place = place.get_submodule(part)
        place.register_parameter(last, torch.nn.Parameter(tensor, requires_grad=False))
    return model
