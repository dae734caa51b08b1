"""Time and memory of contenders for one job."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

_LEAST_ROUNDS = 3
_MOST_ROUNDS = 50
_GPU_RUNS = 10


@dataclass(frozen=True)
class Contender:
    """One way to do the job; `restore`, not timed, brings back what `run` needs to run again."""

    name: str
    run: Callable[[], object]
    restore: Callable[[], object] | None = None


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender over all rounds."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


def interleaved(contenders: Sequence[Contender], device: torch.device, budget: float) -> dict[str, Timing]:
    """Time contenders in turns, A B A B: what disturbs the machine for a while disturbs all of them.

    One untimed round warms up. Rounds go on for `budget` seconds, at least three.
    """
    for contender in contenders:
        _timed(contender, device)
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    began = time.perf_counter()
    for done in range(_MOST_ROUNDS):
        if done >= _LEAST_ROUNDS and time.perf_counter() - began > budget:
            break
        for contender in contenders:
            seconds[contender.name].append(_timed(contender, device))
    return {name: Timing.of(measured) for name, measured in seconds.items()}


def peak_temporary(contender: Contender, device: torch.device) -> int:
    """Bytes of tensors that one run holds beyond what was there before, at the most.

    CUDA: the caching allocator's own peak. CPU: the running sum of the allocations and frees that
    torch's profiler records; what BLAS packs inside one product is not among them.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        contender.run()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
            contender.run()
        changes = sorted(
            (event.start_ns(), event.nbytes())
            for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"
        )
        held = peak = 0
        for _, size in changes:
            held += size
            peak = max(peak, held)
    if contender.restore:
        contender.restore()
    return peak


def kernel_launches(contender: Contender) -> int:
    """How many CUDA kernels one run starts, copies not counted."""
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        contender.run()
        torch.cuda.synchronize()
    if contender.restore:
        contender.restore()
    return sum(
        event.device_type() == torch.autograd.DeviceType.CUDA and not event.name().startswith(("Mem", "mem"))
        for event in profiler.profiler.kineto_results.events()
    )


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of a copy too large for any cache."""
    source = torch.ones(1 << (30 if device.type == "cuda" else 28), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timing = interleaved([Contender("copy", lambda: target.copy_(source))], device, 1.0)["copy"]
    return 2 * source.nbytes / timing.median


def _timed(contender: Contender, device: torch.device) -> float:
    cuda = device.type == "cuda"
    # On a GPU the host prepares a run while the one before is at work: as many as make waiting for it cheap.
    runs = _GPU_RUNS if cuda and contender.restore is None else 1
    if cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(runs):
        contender.run()
    if cuda:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / runs
    if contender.restore:
        contender.restore()
    return seconds
