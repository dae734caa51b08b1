"""Signals to `make serve` and its like: whenever and however often they come, no ComfyUI is left running."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from kit.comfyui_server import free_port
from kit.ending import held
from kit.workspace import COMFYUI, PYTHON, ROOT, add_samples

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="make serve is for Linux")


def servers(port):
    """Processes of a ComfyUI on this port."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "main.py" in line and str(port) in line:
            found.append(process)
    return found


class Serving:
    """`make serve` in a process group of its own, as a terminal starts it."""

    def __init__(self, folder, port):
        # The recipe alone: what the Makefile installs before is not what is ended here.
        makefile = folder / "Makefile"
        makefile.write_text(
            f"serve:\n\t@{sys.executable} dev/serve.py --port {port} --base {folder / 'base'}\n", encoding="utf-8")
        self.port, self.log = port, folder / "log"
        with self.log.open("wb") as log:
            self.make = subprocess.Popen(
                ["make", "-f", makefile, "serve"], cwd=ROOT, start_new_session=True, stdout=log,
                stderr=subprocess.STDOUT, env={**os.environ, "COMFYUI": str(COMFYUI), "PYTHON": PYTHON})

    def wait_until_ready(self):
        until = time.monotonic() + 120
        while b"ready: open" not in self.log.read_bytes():
            assert self.make.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.make.pid, number)

    def left_after(self, seconds=20):
        """ComfyUIs that are still there when everything else has had time to end."""
        self.make.wait(seconds)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            mine = [one for one in psutil.process_iter() if _group(one) == self.make.pid]
            if not mine and not servers(self.port):
                return []
            time.sleep(0.1)
        return servers(self.port)


def _group(process):
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


@pytest.fixture
def serving(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("no make")
    add_samples(tmp_path / "base", "demo")
    port = free_port()
    started = Serving(tmp_path, port)
    yield started
    started.signal(signal.SIGKILL)
    for server in servers(port):
        server.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("when", ["booting", "up"])
def test_signals_to_the_group_leave_nothing_running(serving, number, when):
    chance = random.Random(f"{number} {when}")
    if when == "up":
        serving.wait_until_ready()
    else:
        time.sleep(chance.uniform(0.2, 8))
    serving.signal(number)
    for _ in range(2):
        time.sleep(chance.uniform(0, 0.4))
        serving.signal(number)
    assert not serving.left_after()
    assert "Traceback" not in serving.log.read_text(encoding="utf-8", errors="replace")


def test_a_killed_group_leaves_nothing_running(serving):
    """Nobody is left who could stop the server."""
    serving.wait_until_ready()
    assert servers(serving.port)
    serving.signal(signal.SIGKILL)
    assert not serving.left_after()


def test_a_held_signal_comes_after_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), held():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("all of it")
    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_test_run_that_is_ended_takes_its_server_along(tmp_path):
    """As pytest does with its fixture: no handler of its own but for Ctrl-C."""
    port = free_port()
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "dev")!r})
from pathlib import Path
from kit.comfyui_server import ComfyUIServer
with ComfyUIServer(Path({str(COMFYUI)!r}), Path({str(tmp_path)!r}), python={PYTHON!r}, port={port}) as server:
    server.wait()
"""
    test_run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not servers(port):
        assert time.monotonic() < until
        time.sleep(0.1)
    test_run.send_signal(signal.SIGTERM)
    test_run.wait(20)
    while servers(port):
        assert time.monotonic() < until
        time.sleep(0.1)
