"""Writing: the same values back, kohya's hashes, and files that appear whole or not at all."""

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from shinymas_loha.loha.errors import FileError
from shinymas_loha.loha.files import read, save
from shinymas_loha.loha.files.hashes import file_hashes
from shinymas_loha.loha.module import Loha, LohaModule
from shinymas_loha.tests.unit.files_helpers import file_bytes, flat, tucker

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def loha(tmp_path):
    """One of each layout, with a plain LoRA beside them."""
    tensors = (flat("a") | tucker("t") | flat("d", alpha=None) | {"d.dora_scale": torch.rand(6, 1).half()}
               | {"l.lora_up.weight": torch.rand(3, 1), "l.lora_down.weight": torch.rand(1, 3),
                  "a.diff_b": torch.rand(6)})
    metadata = {"ss_output_name": "シャニ", "modelspec.title": "t"}
    (tmp_path / "given.safetensors").write_bytes(file_bytes(tensors, metadata))
    return read(tmp_path / "given.safetensors")


def _tensors(loha):
    ours = {f"{name}.{suffix}": tensor for name, module in loha.modules.items()
            for suffix, tensor in module.tensors().items()}
    return ours | {f"{name}.{suffix}": tensor for name, tensors in loha.others.items()
                   for suffix, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn])
def test_round_trip_is_bit_equal(tmp_path, loha, dtype):
    save(loha, tmp_path / "first.safetensors", dtype)
    first = read(tmp_path / "first.safetensors")
    source = save(first, tmp_path / "second.safetensors", dtype)
    second = read(tmp_path / "second.safetensors")
    assert (tmp_path / "first.safetensors").read_bytes() == (tmp_path / "second.safetensors").read_bytes()
    assert second.source == source
    for name, tensor in _tensors(second).items():
        wanted = _tensors(loha)[name]
        assert torch.equal(tensor.float(), wanted.to(tensor.dtype).float())
        assert tensor.dtype == (torch.float32 if name.startswith("l.") or name == "a.diff_b" else dtype)
    assert {name: module.alpha for name, module in second.modules.items()} == {"a": 1.0, "t": 1.0, "d": None}


def test_factors_made_in_inference_mode_or_still_training_are_written(tmp_path):
    with torch.inference_mode():
        factors = [torch.ones(shape) for shape in ((6, 2), (2, 5), (6, 2))]
    module = LohaModule("m", *factors, torch.ones(2, 5, requires_grad=True), alpha=2.0)
    save(Loha({"m": module}), tmp_path / "a.safetensors")
    assert read(tmp_path / "a.safetensors").modules["m"].scale == 1.0


def test_the_library_reads_it_and_lays_it_out_the_same(tmp_path, loha):
    save(loha, tmp_path / "a.safetensors")
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        metadata = file.metadata()
    assert tensors.keys() == _tensors(loha).keys() | {"a.alpha", "t.alpha"}
    theirs = safetensors.torch.save(tensors, metadata)
    ours = (tmp_path / "a.safetensors").read_bytes()
    length = 8 + int.from_bytes(ours[:8], "little")
    assert len(theirs) == len(ours) and theirs[length:] == ours[length:]


def _kohya_hashes(tensors, metadata):
    """As sd-scripts defines them: over the file with ss_ metadata only, as the library writes it."""
    file = io.BytesIO(safetensors.torch.save(tensors, {k: v for k, v in metadata.items() if k.startswith("ss_")}))
    length = int.from_bytes(file.read(8), "little")
    file.seek(8 + length)
    model = hashlib.sha256(file.read()).hexdigest()
    file.seek(0x100000)
    return model, hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


@pytest.mark.parametrize(("size", "notes"), [
    (8, 1),  # the file ends before the bytes of the legacy hash
    (150_000, 1),  # they lie within the data
    (150_000, 1_060_000),  # they begin in the header and end in the data
    (262_000, 1),  # the file ends among them
])
def test_hashes_are_kohyas(tmp_path, size, notes):
    (tmp_path / "a").write_bytes(file_bytes(flat(out=size, rank=2)))
    metadata = {"ss_tag_frequency": '{"a\\n\u2028": "é"}' + " " * notes, "modelspec.title": "x",
                "sshs_model_hash": "stale"}
    save(read(tmp_path / "a"), tmp_path / "b.safetensors", metadata=metadata)
    written = read(tmp_path / "b.safetensors").metadata
    tensors = safetensors.torch.load_file(tmp_path / "b.safetensors")
    assert (written["sshs_model_hash"], written["sshs_legacy_hash"]) == _kohya_hashes(tensors, metadata)
    assert written["ss_tag_frequency"] == metadata["ss_tag_frequency"] and written["modelspec.title"] == "x"


def test_names_are_changed_on_the_way_out(tmp_path, loha):
    save(loha, tmp_path / "a.safetensors", rename=lambda name: f"lora_unet_{name}")
    written = read(tmp_path / "a.safetensors")
    assert written.modules.keys() == {"lora_unet_a", "lora_unet_d", "lora_unet_t"}
    assert written.others.keys() == {"lora_unet_a", "lora_unet_l"}


def test_two_modules_never_share_a_name(tmp_path, loha):
    with pytest.raises(FileError, match="two modules would both be written as 'same.hada_w1_a'"):
        save(loha, tmp_path / "a.safetensors", rename=lambda name: "same")


@pytest.mark.parametrize(("value", "dtype", "text"), [
    (float("nan"), torch.float32, "'a.hada_w1_a' holds NaN"),
    (70_000.0, torch.float16, "too large for float16"),
])
def test_numbers_that_are_not_finite_are_refused(tmp_path, loha, value, dtype, text):
    module = replace(loha.modules["a"], w1_a=torch.full((6, 2), value))
    with pytest.raises(FileError, match=f"bad.safetensors: tensor .*{text}"):
        save(replace(loha, modules={"a": module}), tmp_path / "bad.safetensors", dtype)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given.safetensors"]


@pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, {"a": "\ud800"}])
def test_metadata_is_strings(tmp_path, loha, metadata):
    with pytest.raises(FileError, match="a.safetensors: metadata .*must be"):
        save(loha, tmp_path / "a.safetensors", metadata=metadata)


def test_metadata_that_could_not_be_read_again_is_refused(tmp_path, loha):
    with pytest.raises(FileError, match="more than the 100000000"):
        save(loha, tmp_path / "a.safetensors", metadata={"a": "x" * 100_000_000})


def test_an_empty_loha_is_refused(tmp_path):
    with pytest.raises(FileError, match="nothing to write"):
        save(Loha({}), tmp_path / "a.safetensors")


def test_an_existing_file_is_replaced_only_when_asked(tmp_path, loha):
    target = tmp_path / "a.safetensors"
    target.write_bytes(b"precious")
    with pytest.raises(FileError, match="a.safetensors: exists already and is not replaced; choose another name"):
        save(loha, target)
    assert target.read_bytes() == b"precious"
    save(loha, target, overwrite=True)
    assert len(read(target)) == len(loha)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "given.safetensors"]


def test_a_folder_of_that_name_is_not_replaced(tmp_path, loha):
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(FileError, match="a.safetensors: is not a regular file"):
        save(loha, tmp_path / "a.safetensors", overwrite=True)


def test_folders_are_made_and_the_mode_is_the_umasks(tmp_path, loha):
    before = os.umask(0o027)
    try:
        save(loha, tmp_path / "new" / "folder" / "a.safetensors")
    finally:
        os.umask(before)
    mode = (tmp_path / "new" / "folder" / "a.safetensors").stat().st_mode & 0o777
    assert os.name == "nt" or mode == 0o640


def test_old_leftovers_are_swept_and_nothing_else(tmp_path, loha):
    old, young = (tmp_path / f".shinymas-{digit * 16}.tmp" for digit in "01")
    foreign = tmp_path / ".shinymas-notes.tmp"
    for path in (old, young, foreign):
        path.write_bytes(b"x")
    for path in (old, foreign):
        os.utime(path, (time.time() - 7200,) * 2)
    save(loha, tmp_path / "a.safetensors")
    assert not old.exists() and young.exists() and foreign.exists()


def test_a_parent_that_is_a_file(tmp_path, loha):
    with pytest.raises(FileError, match="a.safetensors: cannot be written .*; nothing was changed"):
        save(loha, tmp_path / "given.safetensors" / "a.safetensors")


KILLED = """
import runpy, sys
runpy.run_path(sys.argv[1])
import torch
from shinymas_loha.loha.files import save
from shinymas_loha.loha.module import Loha, LohaModule
factors = [torch.ones(shape) for shape in ((500_000, 4), (4, 9)) * 2]
loha = Loha({"m": LohaModule("m", *factors)})
print("ready", flush=True)
while True:
    save(loha, sys.argv[2], torch.float32, overwrite=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is of POSIX")
def test_a_killed_save_leaves_the_file_as_it_was_or_whole(tmp_path, loha):
    target = tmp_path / "a.safetensors"
    save(loha, target)
    command = [sys.executable, "-c", KILLED, str(ROOT / "tests" / "conftest.py"), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.03)
        child.send_signal(signal.SIGKILL)
    assert len(read(target)) in (len(loha), 1)
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".shinymas-")} == {
        "a.safetensors", "given.safetensors"}


@pytest.mark.skipif(os.name == "nt", reason="limits on file sizes are of POSIX")
def test_a_full_disk_leaves_nothing_behind(tmp_path, loha):
    """A limit on file sizes fails the write half-way, as a full disk does."""
    import resource  # there is none on Windows

    target = tmp_path / "a.safetensors"
    before = save(loha, target)
    large = Loha({"m": LohaModule("m", *[torch.ones(shape) for shape in ((500_000, 4), (4, 9)) * 2])})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(FileError, match="a.safetensors: cannot be written .File too large.; nothing was changed"):
            save(large, target, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read(target).source == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "given.safetensors"]


def test_hashes_of_a_models_file(tmp_path):
    """The web UI's old hash: of 64 KiB from the second MiB on; of a smaller file, of nothing."""
    data = random.Random(0).randbytes(0x130000)
    (tmp_path / "model").write_bytes(data)
    (tmp_path / "small").write_bytes(b"x")
    assert file_hashes(tmp_path / "model") == (
        hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8], hashlib.sha256(data).hexdigest())
    assert file_hashes(tmp_path / "small") == (
        hashlib.sha256(b"").hexdigest()[:8], hashlib.sha256(b"x").hexdigest())
