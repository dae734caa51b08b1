"""A whole training step at SD 1.5's size: ours, LyCORIS, and a plain LoRA of as many parameters.

Forward, backward and AdamW under fp16 autocast over fp16 weights, U-Net and text encoder, the page's 302 modules. On a
CPU SD 1.5's two widest levels of weights in float32, small and larger pictures: a LoHa's own work is by the weight, the
U-Net's by the pixel. What is measured beyond that: the memory that a step takes
beyond models, parameters and the optimiser's moments, and where the GPU's time goes.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from suite.measure import Contender, interleaved, kernel_launches, peak_temporary
from suite.plain_lora import plain_lora, put_on
from suite.results import Case, Row
from suite.session import Session
from suite.small_models import sd15_models, small_models

_RANK, _ALPHA = 16, 1.0
_BACKEND = "LYCORIS_KERNEL_BACKEND"  # of LyCORIS 4, read at every call
_CAPTION = "Kazano Hiori, 1girl, smile, school uniform, blue hair, outdoors, looking at viewer"


def cases(session: Session) -> Iterator[Case]:
    """A case for each size of a batch, ours first; a note gives LoHa ÷ LoRA."""
    on_gpu = session.device.type == "cuda"
    sizes = ((4, 640), (8, 640)) if on_gpu else ((1, 64),) if session.quick else ((2, 128), (2, 256))
    bench = _Bench(session.device, is_small=session.quick)
    for batch, pixels in sizes:
        contenders = bench.contenders(batch, pixels)
        timings = interleaved(contenders, session.device, session.seconds)
        rows = []
        for one in contenders:
            bench.put_on_anew()  # what a network keeps from step to step counts as memory of a step
            rows.append(Row(one.name, timings[one.name], peak_temporary(one, session.device),
                            launches=kernel_launches(one) if on_gpu else None))
        ours, lora = rows[0], rows[-1]
        notes = [f"LoHa ÷ LoRA {ours.timing.median / lora.timing.median:.3f} in time, {ours.peak / lora.peak:.3f} in "
                 "memory", *bench.failed]
        yield Case("training step", f"{bench.title}, batch {batch} at {pixels} px, with AdamW", rows, "; ".join(notes))
        if on_gpu and (batch, pixels) == sizes[0]:
            for one in (contenders[0], contenders[-1]):
                print(f"where the GPU's time goes: {one.name}\n{_profile(one)}", flush=True)


class _Bench:
    """The contenders, each on models of its own, which lie beside one another on the device."""

    def __init__(self, device: torch.device, *, is_small: bool) -> None:
        from shinymas_loha.loha.training.network.loha_network import LohaNetwork
        from shinymas_loha.loha.training.settings import TrainingSettings

        self._device, self._is_small = device, is_small
        self._precision = "fp16" if device.type == "cuda" else "fp32"
        self._settings = TrainingSettings(network_rank=_RANK, network_alpha=_ALPHA, mixed_precision=self._precision)
        self.failed: list[str] = []
        models = self._models()
        network = LohaNetwork(models, self._settings)
        names = list(network.factors)
        numbers = sum(parameter.numel() for parameter in network.parameters())
        self._made = [("ours", models, network, network.attached, "")]
        version = importlib.metadata.version("lycoris-lora")
        for backend, options in _lycoris_backends(device):
            models = self._models()
            peers, put = _lycoris(models.layers, names, options)
            mode = " bypass" if options else ""
            self._made.append((f"LyCORIS {version} {backend or 'eager'}{mode}", models, peers, put, backend))
        models = self._models()
        layers = {name: models.layers[name] for name in names}
        lora = plain_lora(layers, 2 * _RANK, _ALPHA)
        assert sum(parameter.numel() for parameter in lora.parameters()) == numbers
        self._made.append(("plain LoRA", models, lora, lambda: put_on(lora, layers), ""))
        self._on = ExitStack()
        self.put_on_anew()
        self.title = f"{len(names)} modules, {numbers / 1e6:.1f} M parameters each, {self._precision}"

    def contenders(self, batch: int, pixels: int) -> list[Contender]:
        """Those that run here; a peer that fails is noted in `failed`."""
        found = []
        for name, models, network, _, backend in self._made:
            one = Contender(name, self._stepping(models, network, backend, batch, pixels), restore=lambda: None)
            try:
                one.run()
            except Exception as error:
                if name == "ours" or isinstance(error, torch.OutOfMemoryError):
                    raise
                self.failed.append(f"{name} fails: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
            else:
                found.append(one)
        return found

    def put_on_anew(self) -> None:
        """Put every network on its models, as a run does at the start of an epoch."""
        self._on.close()
        for _, _, _, put, _ in self._made:
            self._on.enter_context(put())

    def _models(self):
        if self._device.type == "cuda":
            return sd15_models(self._device, torch.float16)
        return small_models(*(((32, 64), 64) if self._is_small else ((320, 640), 768)), self._device)

    def _stepping(self, models, network: nn.Module, backend: str, batch: int, pixels: int) -> Callable[[], None]:
        from shinymas_loha.loha.training.objective.loss import Step
        from shinymas_loha.loha.training.objective.noise import Draw

        generator = torch.Generator().manual_seed(batch)
        side = pixels // 8
        latents, noise, posterior = (
            torch.randn(batch, 4, side, side, generator=generator).to(self._device) for _ in range(3))
        drawn = Draw(noise, posterior, torch.randint(1000, (batch,), generator=generator).to(self._device))
        captions = [f"{_CAPTION}, {number}" for number in range(batch)]
        step = Step(models, self._settings, self._precision)
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=1e-4)

        def run() -> None:
            os.environ[_BACKEND] = backend or "torch"
            step.losses(latents, drawn, captions).mean().backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        return run


def _lycoris_backends(device: torch.device) -> list[tuple[str, dict[str, object]]]:
    """(backend, further options of its module) that the installed LyCORIS has on this device; "" is its eager code."""
    if importlib.util.find_spec("lycoris.kernels") is None:  # came with version 4
        return [("", {})]
    from lycoris.kernels import fused_backends

    fused = fused_backends(device) if device.type == "cuda" else ()
    return [("", {})] + [(name, options) for name in fused for options in ({}, {"bypass_mode": True})]


def _lycoris(layers, names: list[str], options: dict) -> tuple[nn.ModuleList, Callable[[], AbstractContextManager]]:
    """LyCORIS' modules on these layers; they stay on."""
    from lycoris.modules.loha import LohaModule

    made = nn.ModuleList()
    for name in names:
        module = LohaModule(name, layers[name], 1.0, _RANK, _ALPHA, **options).to(layers[name].weight.device)
        module.apply_to()
        made.append(module)
    return made, nullcontext


def _profile(contender: Contender) -> str:
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        contender.run()
        torch.cuda.synchronize()
    return profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=18, max_name_column_width=70)
