"""Several processes that train one network: started by torchrun, or one alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`; alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place and on each."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes, in one message.

        A parameter that got none here but did elsewhere (an empty part of a small batch) takes part
        with zeros; one that got none anywhere keeps none, so that no optimiser touches it.
        """
        if self.size == 1:
            return
        counted = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([counted, *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(flat)
        counts, *sums = flat.split([len(parameters), *(p.numel() for p in parameters)])
        for parameter, count, total in zip(parameters, counts.tolist(), sums, strict=True):
            parameter.grad = total.view_as(parameter).clone() if count else None

    def share(self, text: str | None) -> str:
        """The first process's text, on every process; the others' is not looked at."""
        if self.size == 1:
            return text
        shared = [text]
        dist.broadcast_object_list(shared)
        return shared[0]

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


def local_device() -> torch.device:
    """The GPU that torchrun means for this process, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def join(*, on_cpu: bool) -> World:
    """Join the processes that torchrun started (nccl where each trains on its own GPU, else gloo); alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    gpus = 0 if on_cpu else torch.cuda.device_count()
    own_gpu = gpus >= int(os.environ["LOCAL_WORLD_SIZE"])
    dist.init_process_group("nccl" if own_gpu else "gloo")
    return World(dist.get_rank(), dist.get_world_size())


def leave(world: World) -> None:
    """End what `join` began."""
    if world.size > 1:
        dist.destroy_process_group()
