"""A plain LoRA as kohya's scripts train it, to measure a LoHa against: two thin layers beside each layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class PlainLora(nn.Module):
    """`layer(x) + up(down(x)) · alpha / rank`; a Linear's are Linears, a Conv2d's a Conv2d of its kernel and a 1×1.

    Args:
        layer: a Linear or an ungrouped Conv2d, of any dtype; it is only read.
        rank, alpha: as in a file.

    Parameters are float32 on the layer's device: down (rank, in, *kernel), up (out, rank), which begins at zero.
    """

    def __init__(self, layer: nn.Module, rank: int, alpha: float) -> None:
        super().__init__()
        if isinstance(layer, nn.Conv2d):
            self.down = nn.Conv2d(layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, bias=False)
            self.up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        else:
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        self.scale = alpha / rank
        self.to(layer.weight.device)
        self._plain = layer.forward  # a bound method, so that the layer is not registered as a part of this

    def forward(self, x: Tensor) -> Tensor:
        return self._plain(x) + self.up(self.down(x)) * self.scale


def plain_lora(layers: Mapping[str, nn.Module], rank: int, alpha: float) -> nn.ModuleDict:
    """A LoRA for each layer, by its name."""
    torch.manual_seed(0)
    return nn.ModuleDict({name: PlainLora(layer, rank, alpha) for name, layer in layers.items()})


@contextmanager
def put_on(modules: Mapping[str, nn.Module], layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Inside, each layer's forward is that of the module of its name."""
    try:
        for name, module in modules.items():
            layers[name].forward = module.forward
        yield
    finally:
        for name in modules:
            del layers[name].forward
