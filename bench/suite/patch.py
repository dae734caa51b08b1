"""The whole way through ComfyUI's ModelPatcher: copy in float32, adapter, rounded back to the weight's dtype."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from suite import sets
from suite.measure import Contender, interleaved, peak_temporary
from suite.results import Case, Row
from suite.session import Session

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def cases(session: Session) -> Iterator[Case]:
    for dtype in (torch.float32, torch.float16):
        name = str(dtype).removeprefix("torch.")
        yield _case(session, sets.modules("302", session.quick), dtype,
                    f"{sets.label('302', session.quick)}, {name} weights, float16 factors")


@torch.inference_mode()  # as in ComfyUI's nodes
def _case(session: Session, chosen: list[sets.Module], dtype: torch.dtype, title: str) -> Case:
    from comfy.model_patcher import ModelPatcher
    from comfy.weight_adapter import LoHaAdapter
    from shinymas_loha.loha.kernels import Factors, PackedFactors
    from shinymas_loha.patcher.adapter import LohaAdapter

    model = _model(chosen, dtype, session.device)
    given = sets.factors(chosen, torch.float16)
    ours = [Factors(*four) for four in given]
    if session.device.type == "cuda":
        ours = PackedFactors(ours, session.device)
    adapters = {
        "ours": [LohaAdapter.of(four, sets.ALPHA) for four in ours],
        "ComfyUI core": [LoHaAdapter(set(), (w1_a, w1_b, sets.ALPHA, w2_a, w2_b, None, None, None))
                         for w1_a, w1_b, w2_a, w2_b in given],
    }
    patchers = {name: ModelPatcher(model, session.device, torch.device("cpu")) for name in adapters}
    weights = [module.weight for module in chosen]
    for name, patcher in patchers.items():
        patcher.add_patches(dict(zip(weights, adapters[name], strict=True)), 1.0)
    timings = interleaved(
        [_contender(name, patcher, session.device, weights) for name, patcher in patchers.items()],
        session.device, session.seconds)
    # Weights are patched one after the other: the largest tells the temporaries, itself not one of them.
    largest = max(chosen, key=lambda module: module.shape.numel())
    result = largest.shape.numel() * dtype.itemsize
    return Case("patch", title, [
        Row(name, timings[name],
            peak_temporary(_contender(name, patcher, session.device, [largest.weight]), session.device) - result,
            sets.bytes_to_merge(chosen, dtype, torch.float16))
        for name, patcher in patchers.items()
    ])


def _contender(name: str, patcher: ModelPatcher, device: torch.device, weights: list[str]) -> Contender:
    def run() -> None:
        for weight in weights:
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
