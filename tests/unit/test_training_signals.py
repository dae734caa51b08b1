"""What Ctrl-C does to `train.py`, in the one process of this test."""

import importlib.util
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a process of its own")


@pytest.fixture
def signals():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    spec = importlib.util.spec_from_file_location("train_command", TRAIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module._Signals()
    signal.alarm(0)
    for number, handler in before.items():
        signal.signal(number, handler)


def _interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_that_an_import_swallowed_ends_the_run_before_its_first_step(signals):
    with suppress(KeyboardInterrupt):  # as code does that is imported
        _interrupt()
    with pytest.raises(KeyboardInterrupt), signals.breakable():
        pytest.fail("the run began")


def test_the_first_in_a_run_asks_and_the_second_breaks_off(signals):
    with signals.breakable():
        _interrupt()
    assert signals.are_there()
    with signals.breakable():  # a validation, or the rest of the step
        pass
    with pytest.raises(KeyboardInterrupt), signals.breakable():
        _interrupt()
