"""Several processes that train one network: what they add up, and what becomes of the others when one fails."""

import re
from pathlib import Path

import pytest
from ranks import run_ranks

TRAIN = """
import pathlib, shutil
from dataclasses import replace
import numpy as np
from PIL import Image
from importlib import util
spec = util.spec_from_file_location("small", {unit_conftest!r})
small = util.module_from_spec(spec); spec.loader.exec_module(small)
from shinymas_loha.loha.errors import LohaError
from shinymas_loha.loha.training.data import *
from shinymas_loha.loha.training.run.folder import RunFolder
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.progress import Watcher
from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings
here = pathlib.Path({here!r})
models = small._models()
options = DataOptions((FolderOptions(here / "pictures", repeats=1),), resolution=64, bucket_min=64, bucket_max=64,
                      batch_size=2, latent_cache="none")
data = TrainingData(index_pictures(options), options)
settings = TrainingSettings(
    network_rank=2, optimizer="AdamW", mixed_precision="fp32", max_token_length=75, save_precision="fp32",
    max_train_epochs=20, save_every_n_epochs=0, output_name="tiny", module_filter="*mid_block*attn1*")
if world.is_first:
    (here / "loras" / "tiny").mkdir(parents=True)
world.share("made", "")
state = dict(done=0, spoil=False)
def encode(pixels):
    found = models.encode(pixels)
    return replace(found, mean=found.mean * float("nan")) if state["spoil"] else found
run = Training(replace(models, encode=encode), data, Latents(data, encode), settings, session="1", precision="fp32",
               world=world, folder=RunFolder(here / "loras" / "tiny", settings))
class Fault(LohaError): pass
def on_step(progress):
    state["done"] = progress.step
    {on_step}
def on_epoch(epoch, loha):
    {on_epoch}
try:
    run.run(Watcher(on_step=on_step, on_epoch=on_epoch))
    world.leave(0)
except LohaError as error:
    if world.is_to_say(str(error)):
        print("error:", error)
    print("kept", run.keeper.kept, "of", state["done"])
    world.leave(1, str(error))
"""


@pytest.fixture
def train(tmp_path, tiny_data):
    """Two processes train the tiny models; `on_step` and `on_epoch` are statements in their watchers."""
    from shinymas_loha.tests.unit import conftest

    tiny_data()
    (tmp_path / "1_pictures").rename(tmp_path / "pictures")

    def run(on_step="pass", on_epoch="pass"):
        return run_ranks(TRAIN.format(here=str(tmp_path), unit_conftest=conftest.__file__, on_step=on_step,
                                      on_epoch=on_epoch))

    return run


def told(ended):
    """The errors that all said together, and the step that the first has kept."""
    texts = [text for _, text in ended]
    assert not any("Traceback" in text for text in texts), texts
    errors = [line for text in texts for line in text.splitlines() if line.startswith("error: ")]
    return errors, int(re.search(r"kept (\d+) of", texts[0])[1])


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("where", ["on_step", "on_epoch"])
def test_a_failure_between_steps_ends_all(train, rank, where):
    fault = f"if world.rank == {rank} and run.done == 4: raise Fault('a fault of one')"
    ended = train(**{where: fault})
    assert [code for code, _ in ended] == [1, 1]
    errors, kept = told(ended)
    assert errors == ["error: a fault of one"]
    assert kept in (4, 5)  # the other may have been through one more step


def test_numbers_that_are_not_finite_are_said_once(train):
    ended = train(on_step="state['spoil'] = world.rank == 1 and progress.step >= 3")
    assert [code for code, _ in ended] == [1, 1]
    errors, kept = told(ended)
    assert 3 <= kept <= 5  # the second process has no part in an epoch's batch of one picture
    assert len(errors) == 1
    assert f"step {kept + 1} of 40: the loss is nan; the network after step {kept} is kept" in errors[0]


def test_what_is_added_up():
    code = """
from torch import nn
parameters = [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(1))]
parameters[0].grad = torch.full((2, 3), 1.0 + world.rank)
if world.rank == 1:
    parameters[1].grad = torch.arange(4.0)
told = world.sum_gradients(parameters, torch.tensor([10.0 * world.rank, 1.0]))
assert told.tolist() == [30.0, 3.0], told
assert parameters[0].grad.tolist() == [[6.0] * 3] * 2
assert parameters[1].grad.tolist() == [0.0, 1.0, 2.0, 3.0]
assert parameters[2].grad is None
assert world.share("text", "é" if world.is_first else None) == "é"
world.wait()
with world.first_before_others("order"):
    print("in", flush=True)
assert world.is_to_say(f"only {world.rank}")
print("says", world.is_to_say("all of us"), flush=True)
world.wait()
world.leave(0)
"""
    ended = run_ranks(code, size=3)
    assert [code for code, _ in ended] == [0, 0, 0], ended
    assert sum("says True" in text for _, text in ended) == 1


@pytest.mark.parametrize("waiting", [
    "world.share('never', None)", "world.wait()",
    "world.sum_gradients([torch.nn.Parameter(torch.zeros(3))], torch.zeros(2))",
])
@pytest.mark.parametrize("last", ["world.leave(1, 'the cause')", "import os; os.kill(os.getpid(), 9)"],
                         ids=["leaves", "is killed"])
def test_nobody_waits_for_one_that_cannot_come(waiting, last):
    code = f"""
import time
from shinymas_loha.loha.training.run.processes import ProcessFailed
if world.rank == 1:
    time.sleep(1)
    {last}
try:
    {waiting if "share" not in waiting else waiting + " if not world.is_first else world.wait()"}
except ProcessFailed as error:
    print("error:", error, flush=True)
    world.leave(3, str(error))
"""
    (first, text), _, (third, other) = run_ranks(code, size=3, seconds=60)
    assert (first, third) == (3, 3), (text, other)
    wanted = "error: the cause" if "leave" in last else "error: another process of this run is gone without a word"
    assert wanted in text and wanted in other


def test_two_validate_as_one(train, tmp_path):
    """Each its share of the pictures; both know the whole, and end at the same step."""
    code = TRAIN.format(here=str(tmp_path), unit_conftest=str(Path(__file__).with_name("conftest.py")), on_step="pass",
                        on_epoch="pass")
    code = code.replace("repeats=1)", "repeats=1, validation_split=0.6)").replace(
        "data = TrainingData(", "data = training_data(").replace("max_train_epochs=20", "max_train_epochs=2")
    code = code.replace("    world.leave(0)", """    for one in run.validator.found:
        print("found", one.step, f"{one.loss:.6f}", *(f"{loss:.6f}" for loss in one.by_timestep))
    world.leave(0)""", 1)
    two = run_ranks(code, seconds=300)
    assert [code for code, _ in two] == [0, 0], two
    (_, alone), = run_ranks(code.replace('/ "tiny"', '/ "alone"'), size=1, seconds=300)
    numbers = [[list(map(float, line.split()[1:])) for line in text.splitlines() if line.startswith("found ")]
               for text in (*(text for _, text in two), alone)]
    assert len(numbers[0]) == 2 and numbers[0] == numbers[1]
    assert [one[0] for one in numbers[2]] == [one[0] for one in numbers[0]] == [1.0, 2.0]
    for ours, theirs in zip(numbers[0], numbers[2], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
