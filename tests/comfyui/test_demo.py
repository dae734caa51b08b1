"""`make demo` on a person's own files: what it draws with, and what it says of what it cannot take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import demo
import pytest
from kit.workspace import ROOT
from PIL import Image


@pytest.fixture
def files(base, checkpoint, sample_loha):
    """A checkpoint and a LoHa somewhere on the disk."""
    models = base / "models"
    return {"CHECKPOINT": str((models / "checkpoints" / checkpoint).resolve()),
            "LOHA": str((models / "loras" / sample_loha).resolve())}


def test_it_draws_with_the_files_and_the_character_that_are_given(files, tmp_path, server):
    own = {}
    for name, path in files.items():
        own[name] = tmp_path / f"my own {name.lower()}.safetensors"
        own[name].symlink_to(path)
    given = demo.own_files({name: str(path) for name, path in own.items()})
    demo.link(given, server.base)
    changes = demo.changes_for(given, demo.character_name("櫻木真乃", tmp_path), is_gpu=False)
    small = {"EmptyLatentImage": {"width": (64, "small"), "height": (64, "small")}, "KSampler": {"steps": (1, "short")}}
    texts, pictures = demo.draw(server, changes | small)
    report = next(text for text in texts if text.startswith("modules: ")).splitlines()
    assert report[1] == report[0].replace("modules", "applied") and "file: my own loha.safetensors" in "\n".join(texts)
    assert any("Sakuragi Mano" in text for text in texts)
    assert [Image.open(picture).size for picture in pictures] == [(64, 64)]


def test_on_own_files_the_graph_keeps_its_size(files):
    given = demo.own_files(files)
    assert "EmptyLatentImage" not in demo.changes_for(given, "", is_gpu=False)
    assert set(demo.changes_for(given, "", is_gpu=True)) == {"CheckpointLoaderSimple", "ShinyMasLoadLoha"}


@pytest.mark.parametrize(("change", "message"), [
    ({"LOHA": ""}, "LOHA= is missing: CHECKPOINT and LOHA go together"),
    ({"CHECKPOINT": ""}, "CHECKPOINT= is missing: CHECKPOINT and LOHA go together"),
    ({"LOHA": "/nowhere/x.safetensors"}, "LOHA=/nowhere/x.safetensors: there is no such file."),
    ({"LOHA": str(ROOT / "loha")}, "that is a folder. Give the path of a .safetensors file."),
    ({"LOHA": str(ROOT / "README.md")}, "it ends in '.md'; give a .safetensors file."),
    ({"CHARACTER": "Kazano Hiory"},
     "CHARACTER: 'Kazano Hiory' is not in the cast 'shinymas'; did you mean Kazano Hiori"),
])
def test_what_it_cannot_take_is_one_sentence(files, change, message):
    """As typed, before anything is started."""
    done = subprocess.run([sys.executable, Path(demo.__file__)], env=os.environ | files | change, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1 and message in done.stderr
    assert done.stderr.count("\n") == 1 and "starting" not in done.stdout
