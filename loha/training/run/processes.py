"""Several processes that train one network: started by torchrun, or one alone.

Nobody waits for ever for one that cannot come. A process that fails in a step says so in the very reduction that the
others wait in; one that fails anywhere else leaves word in the store that torchrun keeps, which whoever waits looks
into; one that is killed breaks the connection, or is given up when the waiting process is told to stop.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from ...errors import LohaError

_FAILED = "failed"
_PAUSE = 0.0005  # seconds between two looks at a collective that runs
_LOOK = 0.25  # and between two looks into the store
_WORD = 15.0  # seconds that a failed process has for its last word: it may be saving
_ECHO = 1.0  # and one whose connection broke, which has left word before
_GONE = ("another process of this run is gone without a word: the system may have ended it for want of memory, or "
         "somebody did")


class ProcessFailed(LohaError):
    """Another process of the run cannot go on; the text is that one's own error, where it left one."""


@dataclass
class World:
    """This process among all: `rank` of `size`; alone by default."""

    rank: int = 0
    size: int = 1
    _store: dist.Store | None = field(default=None, repr=False)
    _has_left_a_collective: bool = field(default=False, repr=False)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum_gradients(self, parameters: Sequence[nn.Parameter], told: Tensor, *, failed: bool = False) -> Tensor:
        """Replace every gradient by its sum over all processes and return the sum of `told`, in one message.

        A parameter that got none here but did elsewhere (an empty part of a small batch) takes part with zeros; one
        that got none anywhere keeps none, so that no optimiser touches it.

        Args:
            told: (n,) float32 on the parameters' device, n the same on all processes.
            failed: this process has no gradients to give and cannot go on. It returns zeros, the others raise.

        Raises:
            ProcessFailed: another process failed, or is gone.
        """
        if self.size == 1:
            return told
        sizes = [self.size, told.numel(), len(parameters), *(parameter.numel() for parameter in parameters)]
        flat = torch.zeros(sum(sizes), dtype=told.dtype, device=told.device)
        failures, sums, counts, *gradients = flat.split(sizes)
        if failed:
            failures[self.rank] = 1.0
        else:
            sums.copy_(told)
            counts.copy_(torch.tensor([float(parameter.grad is not None) for parameter in parameters]))
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if parameter.grad is not None:
                    gradient.view_as(parameter).copy_(parameter.grad)
        self._finish(lambda: dist.all_reduce(flat, async_op=True))
        if failed:
            return torch.zeros_like(told)
        if any(failures.tolist()):
            raise self._last_word()
        for parameter, count, total in zip(parameters, counts.tolist(), gradients, strict=True):
            parameter.grad = total.view_as(parameter).clone() if count else None
        return sums.clone()

    def share(self, what: str, text: str | None) -> str:
        """The first process's text, on every process; the others' is not looked at. `what` names it, once in a run."""
        if self.size == 1:
            return text
        key = f"shared/{what}"
        if self.is_first:
            self._store.set(key, text)
            return text
        try:
            self._await(lambda: self._store.check([key]))
            return self._store.get(key).decode()
        except RuntimeError as error:  # the process that keeps the store is gone
            raise ProcessFailed(_GONE) from error

    @contextmanager
    def first_before_others(self, what: str) -> Iterator[None]:
        """The block on the first process, then on the others at once."""
        if not self.is_first:
            self.share(what, None)
        yield
        if self.is_first:
            self.share(what, "")

    def wait(self) -> None:
        """Until every process is here. Raises `ProcessFailed` where one cannot come."""
        if self.size > 1:
            self._finish(lambda: dist.barrier(async_op=True))

    def is_to_say(self, text: str) -> bool:
        """Whether this process is the one to say what others on this machine may have to say too."""
        if self.size == 1:
            return True
        key = f"said/{os.environ.get('GROUP_RANK', '')}/{sha256(text.encode()).hexdigest()}"
        with suppress(RuntimeError):
            return self._store.compare_set(key, "", str(self.rank)).decode() == str(self.rank)
        return True

    def leave(self, code: int, failure: str = "") -> None:
        """End what `join` began.

        Args:
            code: of this process.
            failure: why this process cannot go on; the others are told. It ends here and at once: torch's own way
                out waits for collectives that no one will finish.
        """
        if self.size == 1:
            return
        if failure:
            with suppress(RuntimeError):
                self._store.compare_set(_FAILED, "", failure)
                gone = self._store.add("leaving", 1)
                until = time.monotonic() + _WORD
                # Without torchrun the store is in the first process, and ends with it: the others look before.
                while self.is_first and not _torchrun_keeps_store() and gone < self.size and time.monotonic() < until:
                    time.sleep(_LOOK)
                    gone = self._store.add("leaving", 0)
        if failure or self._has_left_a_collective:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        dist.destroy_process_group()

    def _finish(self, begin: Callable[[], dist.Work]) -> None:
        """Begin a collective and wait for it, but not for a process that cannot come."""
        self._has_left_a_collective = True
        try:
            work = begin()
            self._await(work.is_completed)
            work.wait()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # the connection to another process broke
            raise self._last_word(_ECHO) from error
        self._has_left_a_collective = False

    def _await(self, is_done: Callable[[], bool]) -> None:
        looked = time.monotonic()
        while not is_done():
            time.sleep(_PAUSE)  # in Python, so that a signal's handler can end it
            if time.monotonic() - looked > _LOOK:
                looked = time.monotonic()
                if self._has_failed():
                    raise self._last_word()

    def _has_failed(self) -> bool:
        try:
            return self._store.check([_FAILED])
        except RuntimeError:  # the process that keeps the store is gone
            return True

    def _last_word(self, patience: float = _WORD) -> ProcessFailed:
        """What the process that failed has to say, which it may need a moment for."""
        with suppress(RuntimeError):
            until = time.monotonic() + patience
            while time.monotonic() < until:
                if self._store.check([_FAILED]):
                    return ProcessFailed(self._store.get(_FAILED).decode())
                time.sleep(_LOOK)
        return ProcessFailed(_GONE)


def _torchrun_keeps_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


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
    store, rank, size = next(rendezvous("env://"))
    dist.init_process_group("nccl" if own_gpu else "gloo", store=store, rank=rank, world_size=size)
    return World(rank, size, dist.PrefixStore("shinymas", store))
