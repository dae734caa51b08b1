"""Files that come, go and change in the loras folders, one of them or several."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from kit.comfyui_server import PromptFailed
from safetensors.torch import load_file, save_file


def _info(run_graph, name):
    """What Load LoHa says of the file that a graph calls so; PreviewAny runs anew each time."""
    nodes = {"loha": {"class_type": "ShinyMasLoadLoha", "inputs": {"lora_name": name}},
             "report": {"class_type": "PreviewAny", "inputs": {"source": ["loha", 1]}}}
    return run_graph(nodes)["report"]["text"][0]


@pytest.fixture
def mine(base, sample_loha):
    """A folder `mine` in models/loras with a copy of the sample in it; gone after the test."""
    folder = base / "models" / "loras" / "mine"
    folder.mkdir()
    shutil.copy(folder.parent / sample_loha, folder / "One.safetensors")
    yield folder
    shutil.rmtree(folder)


def test_a_name_of_a_graph_from_windows_finds_its_file(run_graph, mine):
    assert _info(run_graph, "mine\\One.safetensors") == _info(run_graph, "mine/One.safetensors")


@pytest.mark.parametrize("name", ["mine/one.SAFETENSORS", "One.safetensors", "mine\\One", "elsewhere/one.safetensors"])
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(run_graph, mine, name):
    with pytest.raises(PromptFailed, match="is not in the models/loras folder; there is 'mine/One.safetensors'"):
        _info(run_graph, name)


def test_a_deleted_file_is_named_and_found_when_it_is_back(run_graph, mine):
    path, kept = mine / "One.safetensors", mine.parent.parent / "kept"
    before = _info(run_graph, "mine/One.safetensors")
    path.rename(kept)
    with pytest.raises(PromptFailed, match="'mine/One.safetensors' is not in the models/loras folder; put the file"):
        _info(run_graph, "mine/One.safetensors")
    kept.rename(path)
    assert _info(run_graph, "mine/One.safetensors") == before


@pytest.mark.parametrize("way", ["in its place", "another file"])
def test_a_file_of_the_same_size_and_time_is_read_anew(run_graph, mine, way):
    path = mine / "One.safetensors"
    before, stat, data = _info(run_graph, "mine/One.safetensors"), path.stat(), bytearray(path.read_bytes())
    data[-2] ^= 1  # the last factor's last number
    if way == "in its place":
        path.write_bytes(data)
    else:
        new = mine / "new"
        new.write_bytes(data)
        new.replace(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    after = _info(run_graph, "mine/One.safetensors")
    assert after.splitlines()[-1] != before.splitlines()[-1]


@pytest.fixture
def second_folder(comfy, tmp_path):
    """Another loras folder, as `extra_model_paths.yaml` adds one."""
    import folder_paths

    folder_paths.add_model_folder_path("loras", str(tmp_path / "more"))
    yield tmp_path / "more"
    folder_paths.folder_names_and_paths["loras"][0].remove(str(tmp_path / "more"))


def test_a_save_hides_no_file_of_another_loras_folder(base, sample_loha, second_folder):
    from shinymas_loha.loha import FileError, files
    from shinymas_loha.nodes.save import SaveLoha

    other = second_folder / "style" / "theirs.safetensors"
    other.parent.mkdir(parents=True)
    shutil.copy(base / "models" / "loras" / sample_loha, other)
    said = SaveLoha.validate_inputs(name="style/theirs")
    assert said.startswith("'style/theirs' is the name of a file in another loras folder") and "more" in said
    with pytest.raises(FileError, match="another loras folder"):
        SaveLoha.execute(files.read(other), "style\\theirs", "fp16")
    assert not (base / "models" / "loras" / "style").exists()
    path = Path(SaveLoha.execute(files.read(other), "style/ours", "fp16").args[0])
    assert path == base / "models" / "loras" / "style" / "ours.safetensors"
    shutil.rmtree(path.parent)


def test_a_run_takes_no_folder_whose_files_another_one_has(base, second_folder):
    from shinymas_loha.loha.training.run.folder import RunFolder
    from shinymas_loha.loha.training.settings.hyper_parameters import TrainingSettings
    from shinymas_loha.patcher import loras

    (second_folder / "run").mkdir(parents=True)
    made = RunFolder.create(loras.folder(), TrainingSettings(output_name="run"), loras.hidden_by).path
    assert made == base / "models" / "loras" / "run-2"
    made.rmdir()


def test_what_cannot_be_used_is_said_by_load_and_by_save(run_graph, mine, base):
    """Save LoHa writes what is usable; a file that became smaller in silence was a LoHa in part."""
    tensors = load_file(mine / "One.safetensors")
    tensors["lora_unet_conv_in.diff"] = torch.full((320, 4, 3, 3), torch.nan)
    save_file(tensors, mine / "Two.safetensors")
    reason = "its diff holds NaN or infinity (lora_unet_conv_in)"
    assert f"unusable 1: {reason}" in _info(run_graph, "mine/Two.safetensors").splitlines()
    saved = run_graph({
        "loha": {"class_type": "ShinyMasLoadLoha", "inputs": {"lora_name": "mine/Two.safetensors"}},
        "save": {"class_type": "ShinyMasSaveLoha", "inputs": {
            "loha": ["loha", 0], "name": "mine/Three", "precision": "fp16"}}})
    assert f"not written 1: {reason}" in saved["save"]["text"][0].splitlines()
