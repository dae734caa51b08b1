"""Ending at a signal: once, and nothing that must be done to the end is broken off.

A terminal sends Ctrl-C to every process of its group, and `make` passes on what it gets: the same end is asked for
twice, at any moment.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_at_the_first() -> None:
    """Let the first signal end this program (KeyboardInterrupt, or SystemExit with 128 + its number), others not."""
    for number in SIGNALS:
        # Under nohup a closed terminal is to be ignored.
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
            signal.signal(number, _end)


@contextmanager
def held() -> Iterator[None]:
    """What signals do, they do at the end of the block."""
    if threading.current_thread() is not threading.main_thread():  # signals end nothing here
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            if before[number] is not None:  # else it is not Python's to put back
                signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def tied_to_us() -> Callable[[], None] | None:
    """For a child to call before it becomes another program: the kernel ends it when we end, however that comes."""
    if sys.platform != "linux":
        return None
    library, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def tie() -> None:
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # we have ended meanwhile
            os._exit(1)

    return tie


def _end(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, _wait)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _wait(number: int, frame: FrameType | None) -> None:
    """The end is under way."""
