"""Two processes train together, and one of them fails: the other keeps what there is, and both end."""

import re
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest
from kit.comfyui_server import free_port
from shinymas_loha.loha.training.run.folder import read_state

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are limited, stopped and killed here")


class Torchrun:
    """A run of two processes whose output goes to a file."""

    def __init__(self, command, environment, log):
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)

    def text(self):
        return self.log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")

    def wait_for(self, pattern, seconds=180):
        until = time.monotonic() + seconds
        while not re.search(pattern, self.text()):
            assert self.process.poll() is None and time.monotonic() < until, self.text()[-4000:]
            time.sleep(0.05)
        self.ranks = sorted(psutil.Process(self.process.pid).children(), key=lambda one: one.environ()["RANK"])
        assert len(self.ranks) == 2

    def ended(self, seconds=60):
        """torchrun's exit code; fails where it and its processes do not end within the time."""
        began = time.monotonic()
        code = self.process.wait(seconds)
        _, alive = psutil.wait_procs(self.ranks, seconds)
        assert not alive
        print(f"ended after {time.monotonic() - began:.1f} s\n{self.text()[-3000:]}")
        return code

    def errors(self):
        return [line for line in self.text().splitlines() if line.startswith("error: ")]


@pytest.fixture
def torchrun(training_command, one_thread, tmp_path):
    started = []

    def start(name, *more, processes=2, environment=None, **chosen):
        # Nothing is saved on the way: what is there afterwards was kept at the end.
        command = training_command(name, processes, 2, 500, *more, **{"save_every": 1000, **chosen})
        started.append(Torchrun(command, one_thread | (environment or {}), tmp_path / f"{name}.log"))
        return started[-1]

    yield start
    for run in started:
        for process in (*psutil.Process(run.process.pid).children(recursive=True), run.process) if (
                run.process.poll() is None) else ():
            process.kill()
        run.process.wait()


def kept(tmp_path, name, run):
    """The step after which the network was kept, as state, file and message agree."""
    state = read_state(tmp_path / name / "training.state")
    assert (tmp_path / name / f"{name}-step{state.step:08d}.safetensors").is_file()
    assert f"the network after step {state.step} is kept: go on with --resume" in run.text()
    return state.step


def test_a_broken_picture(torchrun, tmp_path, few_pictures):
    run = torchrun("broken", cache="false")
    run.wait_for(r"epoch=3")
    whole = (few_pictures / "2.png").read_bytes()
    (few_pictures / "2.png").write_bytes(whole[:200])
    assert run.ended() == 1
    (error,) = run.errors()
    assert "2.png: broken or truncated" in error and "Mend it or take it out" in error
    step = kept(tmp_path, "broken", run)
    assert step >= 4

    (few_pictures / "2.png").write_bytes(whole)
    newest = tmp_path / "broken" / f"broken-step{step:08d}.safetensors"
    again = torchrun("broken", "--resume", str(newest), cache="false")
    again.wait_for(rf"resumed: exactly, after step {step}")


def test_out_of_memory(torchrun, tmp_path):
    # Each tensor asks the system for memory of its own: what earlier ones gave back would do for all the others.
    run = torchrun("memory", environment={"MALLOC_MMAP_THRESHOLD_": "16384"})
    run.wait_for(r"epoch=3")
    second = run.ranks[1]
    resource.prlimit(second.pid, resource.RLIMIT_AS, (second.memory_info().vms - (1 << 20),) * 2)
    assert run.ended() == 1
    assert len(run.errors()) == 1, run.errors()
    assert run.errors()[0].startswith("error: out of memory: lower the batch size")
    assert kept(tmp_path, "memory", run) >= 4


def test_a_killed_process(torchrun, tmp_path):
    run = torchrun("killed")
    run.wait_for(r"epoch=3")
    run.ranks[1].kill()
    assert run.ended() == 1
    (error,) = run.errors()
    assert "another process of this run is gone without a word" in error
    assert kept(tmp_path, "killed", run) >= 4


def test_a_folder_that_cannot_be_written(torchrun, tmp_path):
    run = torchrun("unwritable", save_every=1)
    run.wait_for(r"epoch=2")
    (tmp_path / "unwritable").rename(tmp_path / "moved")
    (tmp_path / "unwritable").write_text("a file is in the way", encoding="utf-8")
    assert run.ended() == 1
    (error,) = run.errors()
    assert "cannot be written" in error
    assert (tmp_path / "moved" / "training.state").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_by_a_signal(torchrun, tmp_path, number):
    run = torchrun("stopped")
    run.wait_for(r"epoch=3")
    run.process.send_signal(number)
    time.sleep(0.2)
    run.process.send_signal(number)
    run.ended()
    assert not run.errors()
    # torchrun passes both on: the second breaks the step off, if it is not done by then.
    assert re.search(r"(stopped after|broken off in) step \d+ of 1000; the network after step", run.text())
    assert kept(tmp_path, "stopped", run) >= 4


def test_one_that_hangs_does_not_cost_the_others_their_work(torchrun, tmp_path):
    run = torchrun("hanging")
    run.wait_for(r"epoch=3")
    second = run.ranks[1]
    second.suspend()
    time.sleep(1)
    run.process.send_signal(signal.SIGTERM)
    try:
        until = time.monotonic() + 20  # torchrun kills after 30
        while not (tmp_path / "hanging" / "training.state").is_file():
            assert time.monotonic() < until, run.text()[-3000:]
            time.sleep(0.1)
    finally:
        second.kill()
    run.ended()
    assert "broken off in step" in run.text()
    assert kept(tmp_path, "hanging", run) >= 4


@pytest.mark.parametrize("bad", [0, 1])
def test_one_that_cannot_begin(training_command, one_thread, tmp_path, bad):
    """The two started by hand, so that one of them has another command line."""
    port, processes, logs = free_port(), [], []
    for rank in range(2):
        command = training_command("early", 1)
        if rank == bad:
            command[command.index("--checkpoint") + 1] = "no such checkpoint"
        environment = {**one_thread, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                       "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        logs.append(tmp_path / f"{rank}.log")
        with logs[-1].open("wb") as file:
            processes.append(subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT))
    try:
        assert [process.wait(120) for process in processes] == [1, 1]
    finally:
        for process in processes:
            process.kill()
    text = "".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)
    print(text)
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert errors == [line for line in errors if "no such checkpoint: neither a file nor a name" in line]
    assert len(errors) == 1
    assert "Traceback" not in text
    assert not (tmp_path / "early").exists()
