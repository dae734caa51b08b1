"""The network that is trained: a LoHa for each chosen layer, put on the models for a while."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ....text import show
from ... import naming
from ...errors import SettingsError
from ...module import Loha, LohaModule
from ..data import seed_for
from ..models import Models, differentiable
from ..settings.hyper_parameters import TrainingSettings
from ..settings.module_rates import rank_of
from .forward import merged_forward
from .grouped import grouped_layers
from .parameters import LohaParameters
from .recomputation import forget_input, frugal_forward
from .selection import is_text, is_wide, select

_TEXT_LAYER = re.compile(r"lora_te_.*_encoder_layers_(\d+)_")


class LohaNetwork(nn.Module):
    """Factors by kohya name, in float32 on the models' device.

    Construction draws them from the seed; see `take` to go on from a file. Raises `SettingsError`
    when the settings leave nothing to train.
    """

    def __init__(self, models: Models, settings: TrainingSettings) -> None:
        super().__init__()
        self._models = models
        self._settings = settings
        self._layers = select(models.layers, settings)
        if not any(map(self._is_computed, self._layers)):
            raise SettingsError(
                f"clip_skip {settings.clip_skip} leaves out the last text layers, and every module chosen by "
                f"module_filter {show(repr(settings.module_filter))} lies in them: lower clip_skip, or choose others")
        self.factors = nn.ModuleDict()
        own_rank = rank_of(settings.module_ranks)
        for name, layer in self._layers.items():
            wide = is_wide(layer)
            if is_text(name):
                rank, alpha = settings.text_encoder_shape
            elif wide:
                rank, alpha = settings.conv_shape
            else:
                rank, alpha = settings.network_rank, settings.network_alpha
            if own := own_rank(name):
                rank, alpha = own, settings.network_alpha  # the network's alpha, as in kohya's
            parameters = LohaParameters(layer.weight.shape, rank, alpha, tucker=wide and settings.use_tucker)
            if settings.scale_weight_norms:
                parameters.scalar = torch.ones(())
            parameters.draw(settings.initialisation, settings.seed, name)
            self.factors[name] = parameters
        self.to(models.device)
        # Where memory is short each layer is merged by itself, and again for backward.
        self._grouped = None if settings.gradient_checkpointing else grouped_layers(self._layers, self.factors)
        self._dropped: frozenset[str] = frozenset()
        self._rank_masks: dict[str, Tensor] = {}

    def take(self, loha: Loha) -> list[str]:
        """Go on from a `Loha`; returns what a person should know, one sentence each.

        Raises:
            SettingsError: none of its modules is trained here, or one does not fit (see `LohaParameters.take`).
        """
        given = {naming.address(name): module for name, module in loha.modules.items()}
        taken = 0
        for name, factors in self.factors.items():
            module = given.pop(naming.address(name), None)
            if module is not None:
                factors.take(module, name)
                taken += 1
        if not taken:
            first = show(next(iter(loha.modules), "(none)"))
            raise SettingsError(f"none of the {len(loha)} modules of the LoHa to go on from is trained in this run; "
                                f"its first is {first}. Choose a LoHa of this kind of model.")
        notes = [f"goes on from {taken} modules of the LoHa given"]
        if taken < len(self.factors):
            notes.append(f"{len(self.factors) - taken} modules are not in it and begin at zero")
        left = len(given) + len(loha.others) + len(loha.refused)
        if left:
            notes.append(f"{left} modules in it are not trained in this run and will not be in the new file")
        return notes

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The U-Net's parameters and the text encoder's, for an optimiser: each with its "lr"; empty ones left out."""
        settings = self._settings
        groups = [
            {"params": [parameter for name, factors in self.factors.items() if is_text(name) == text
                        for parameter in factors.parameters()], "lr": rate}
            for text, rate in ((False, settings.unet_learning_rate), (True, settings.text_encoder_learning_rate))
        ]
        return [group for group in groups if group["params"]]

    def computed_parameters(self) -> list[nn.Parameter]:
        """Those that a step without dropout gives gradients: all but what lies in text layers that are skipped."""
        return [
            parameter for name, factors in self.factors.items() if self._is_computed(name)
            for parameter in factors.parameters()
        ]

    def trained_tensors(self) -> dict[str, Tensor]:
        """All that training moves, by name: the parameters, and what `limit_norms` multiplies by."""
        return dict(self.named_parameters()) | dict(self.named_buffers())

    def begin_step(self, *purpose: int) -> None:
        """Draw the dropouts of a step, from the seed and `purpose` alone, without asking the device."""
        self._forget_merged()  # not every optimiser lets torch know that it has changed a parameter
        settings = self._settings
        draw = torch.Generator().manual_seed(seed_for(settings.seed, "dropout", *purpose))
        if settings.module_dropout:
            drops = torch.rand(len(self.factors), generator=draw) < settings.module_dropout
            self._dropped = frozenset(name for name, drop in zip(self.factors, drops.tolist(), strict=True) if drop)
        if settings.rank_dropout:
            ranks = [factors.rank for factors in self.factors.values()]
            keeps = (torch.rand(sum(ranks), generator=draw) >= settings.rank_dropout) / (1 - settings.rank_dropout)
            parts = keeps.to(self._models.device, non_blocking=True).split(ranks)
            self._rank_masks = dict(zip(self.factors, parts, strict=True))

    def end_step(self) -> None:
        """No dropout until the next `begin_step`."""
        self._dropped, self._rank_masks = frozenset(), {}

    def release_merged(self) -> None:
        """Give back the memory of what was merged together; it is made anew when it is next asked for."""
        if self._grouped:
            self._grouped.release()

    def limit_norms(self) -> None:
        """Scale every module's ΔW down to `scale_weight_norms`, where that is chosen."""
        if self._settings.scale_weight_norms:
            for factors in self.factors.values():
                factors.limit_norm(self._settings.scale_weight_norms)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the network on the models; whatever ends this, they are as before.

        Inside, the models' weights are ordinary frozen tensors, also if they were loaded under
        `torch.inference_mode`.
        """
        replaced: list[tuple[nn.Module, Callable | None]] = []

        def replace(module: nn.Module, forward: Callable) -> None:
            replaced.append((module, module.__dict__.get("forward")))
            module.forward = forward

        self._forget_merged()
        try:
            with differentiable(self._models.unet, self._models.text.model):
                if self._settings.gradient_checkpointing:
                    for block in self._models.blocks:
                        replace(block, partial(
                            checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False))
                else:  # a block computed twice keeps next to nothing as it is
                    for module in self._frozen_modules():
                        if frugal := frugal_forward(module):
                            replace(module, frugal)
                for name, layer in self._layers.items():
                    replace(layer, partial(self._forward, name, layer, layer.forward))
                yield
        finally:
            self.release_merged()
            for module, before in reversed(replaced):
                if before is None:
                    del module.forward
                else:
                    module.forward = before

    def modules_for_file(self) -> Mapping[str, LohaModule]:
        """Copies of all modules on the CPU, under kohya's names."""
        return {name: factors.module(name) for name, factors in self.factors.items()}

    def _forget_merged(self) -> None:
        if self._grouped:
            self._grouped.forget()

    def _is_computed(self, name: str) -> bool:
        text_layer = _TEXT_LAYER.match(name)
        return text_layer is None or (
            int(text_layer[1]) <= len(self._models.text.model.encoder.layers) - self._settings.clip_skip)

    def _frozen_modules(self) -> Iterator[nn.Module]:
        trained = set(self._layers.values())
        for root in (self._models.unet, self._models.text.model):
            yield from (module for module in root.modules() if module not in trained)

    def _forward(self, name: str, layer: nn.Module, plain: Callable, x: Tensor) -> Tensor:
        if name in self._dropped:
            return plain(x)
        y = self._merged(name, layer, x)
        if not self._settings.gradient_checkpointing:
            forget_input(y, x)
        return y

    def _merged(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        if self._grouped and not self._rank_masks and self._grouped.covers(name, x):
            return self._grouped.forward(name, x)
        factors = self.factors[name]
        with torch.autocast(x.device.type, enabled=False):  # a Tucker core is multiplied in full precision
            flat = factors.flat(self._rank_masks.get(name))
        return merged_forward(layer, x, flat, factors.scale, frugal=self._settings.gradient_checkpointing)
