"""`make learning`: its sprites can be told apart, both trainers see the same, and a small run goes to its end."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.append(str(BENCH))

from suite.learning import characters, experiment, sprites, trainers, world  # noqa: E402


@pytest.fixture(scope="module")
def models():
    """Weights as they are drawn: nothing has been learnt."""
    return world.small_models(characters.NAMES, 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return characters.training_data(characters.cast(3), tmp_path_factory.mktemp("cast"), 3)


def as_pictures(drawn):
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 255


def test_no_two_sprites_are_alike():
    drawn = {sprites.draw(look, moment).tobytes() for look in sprites.LOOKS for moment in sprites.MOMENTS}
    assert len(drawn) == len(sprites.LOOKS) * len(sprites.MOMENTS) == 96 * 48


def test_every_look_is_recognised_in_every_moment_through_some_noise():
    looks = [look for look in sprites.LOOKS for _ in sprites.MOMENTS]
    pictures = as_pictures([sprites.draw(look, moment) for look in sprites.LOOKS for moment in sprites.MOMENTS])
    assert sprites.nearest_looks(pictures) == looks
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    assert sprites.nearest_looks(pictures + 0.05 * noise) == looks


def test_a_picture_of_her_with_other_eyes_is_not_her():
    look, moment = sprites.LOOKS[0], sprites.MOMENTS[0]
    changed = sprites.draw(look, moment)
    changed[6:8, 5:7] = changed[6:8, 9:11] = sprites.EYES["red eyes"]
    assert sprites.nearest_looks(as_pictures([changed])) == [replace(look, eyes="red eyes")]


def test_a_sprite_comes_back_from_its_picture_and_its_latent(models, data):
    one = characters.cast(3)[0]
    picture = data.picture(0, False)
    small = picture[:, ::world.PIXEL, ::world.PIXEL].mul(255).round().byte().permute(1, 2, 0).numpy()
    drawn = [sprites.draw(one.look, moment) for moment in sprites.MOMENTS
             if characters.caption(one, moment) == data.index.captions[0]]
    assert len(drawn) == 1 and np.array_equal(small, drawn[0])
    assert torch.allclose(models.encode(picture[None]).mean, world.pixels_to_latents(drawn[0]))


def test_captions_name_her_and_do_not_tell_her_look(data):
    people = characters.cast(3)
    assert len({one.look for one in people}) == len(people)
    look_tags = {tag for look in sprites.LOOKS for tag in look.tags}
    for one in people:
        hers = [caption for caption in data.index.captions if caption.startswith(f"{one.name}, ")]
        assert len(set(hers)) == len(hers) == one.pictures
        assert not look_tags.intersection(tag for caption in hers for tag in caption.split(", "))


def test_both_trainers_take_the_same_steps_and_leave_the_models_as_they_were(models, data, tmp_path):
    settings = replace(experiment.settings(1), max_train_steps=4)
    brush = world.Brush(models, 2, 3)
    before, plain = {name: layer.weight.clone() for name, layer in models.layers.items()}, brush.paint(["Ada"])
    losses, painted = [], []
    for trainer in (trainers.Ours(models, settings, tmp_path / "x.safetensors"), trainers.Lycoris(models, settings)):
        seen = []
        trainer.train(data, lambda step, steps, loss, seen=seen: seen.append((step, steps, loss)))
        assert [at[:2] for at in seen] == [(step, 4) for step in range(1, 5)]
        losses.append([loss for *_, loss in seen])
        with trainer.on(1.0):
            painted.append(brush.paint(["Ada"]))
        with trainer.on(0.0):
            assert torch.allclose(brush.paint(["Ada"]), plain, atol=1e-5)
        assert all(torch.equal(before[name], layer.weight) for name, layer in models.layers.items())
        assert torch.equal(brush.paint(["Ada"]), plain)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert torch.allclose(*painted, atol=1e-2)
    assert (painted[0] - plain).abs().max() > 2 * (painted[0] - painted[1]).abs().max()


def run(*arguments):
    return subprocess.Popen([sys.executable, BENCH / "learning.py", *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_a_few_steps_go_through_to_the_files(tmp_path):
    process = run("--quick", "--out", tmp_path / "found")
    out, err = process.communicate()
    assert process.returncode == 0, err
    for what in ("base model: step 3 of 3", "ours: step 16 of 16", "LyCORIS: step 16 of 16", "96 by tags"):
        assert what in out
    assert str(tmp_path / "found") in out.splitlines()[-1]
    figures = json.loads((tmp_path / "found" / "figures.json").read_text())
    assert len(figures["recognised"]) == 10 * 7 and list(figures["right by tags, of 96"])[0] == "base"
    for name in ("sheet.png", "chart.png"):
        with Image.open(tmp_path / "found" / name) as picture:
            picture.load()


def test_ctrl_c_ends_it_in_one_line(tmp_path):
    process = run("--out", tmp_path)
    assert "base model: step 1 of " in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.splitlines() == ["stopped before the end: nothing was measured"]
