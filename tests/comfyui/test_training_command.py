"""The command line: one process and two, Ctrl-C, exit codes."""

import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from kit.workspace import ROOT
from PIL import Image
from shinymas_loha.loha.files import read
from shinymas_loha.loha.training.run.folder import read_state


def test_two_processes_of_two_are_one_of_four(training_command, one_thread, tmp_path):
    for name, processes, batch in (("one", 1, 4), ("two", 2, 2)):
        done = subprocess.run(training_command(name, processes, batch), env=one_thread, capture_output=True, text=True,
                              timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "steps: 2 of 2" in done.stdout
    one, two = (read_state(tmp_path / name / "training.state") for name in ("one", "two"))
    assert two.losses == pytest.approx(one.losses, rel=1e-5)
    for name, tensor in one.parameters.items():
        assert float((two.parameters[name] - tensor).norm()) <= 1e-3 * float(tensor.norm()), name
    metadata = read(tmp_path / "two" / "two.safetensors").metadata
    assert re.fullmatch("[0-9a-f]{8}", metadata["ss_sd_model_hash"])
    assert re.fullmatch("[0-9a-f]{64}", metadata["ss_new_sd_model_hash"])
    assert "ss_vae_hash" not in metadata  # the checkpoint's own


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to another process")
def test_ctrl_c_saves_and_the_run_can_be_gone_on_with(training_command, one_thread, tmp_path):
    process = subprocess.Popen(training_command("stopped", 1, 2, 3), env=one_thread, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while not (tmp_path / "stopped" / "stopped-000001.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    state = read_state(tmp_path / "stopped" / "training.state")
    assert 3 <= state.step < 9
    newest = max((tmp_path / "stopped").glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    done = subprocess.run(training_command("stopped", 1, 2, 3, "--resume", str(newest)), env=one_thread,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"resumed: exactly, after step {state.step}" in done.stdout
    assert "steps: 9 of 9" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to another process")
@pytest.mark.parametrize("after", [None, "bucket: "], ids=["while Python imports", "while models load"])
def test_ctrl_c_before_the_first_step_is_one_line(training_command, one_thread, tmp_path, after):
    process = subprocess.Popen(training_command("early"), env=one_thread | {"PYTHONUNBUFFERED": "1"},
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if after:
        next(line for line in process.stdout if line.startswith(after))
    else:
        time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert told.splitlines()[-1] == "stopped before the first step" and "Traceback" not in told
    assert not list((tmp_path / "early").glob("*.safetensors"))


def test_what_cannot_be_used_is_one_line(training_command, one_thread):
    bad = training_command("bad")
    bad[bad.index("--data") + 1] = "no such folder"
    done = subprocess.run(bad, env=one_thread, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: no such folder: no such folder")


def test_a_console_that_lacks_letters_ends_no_run(training_command, one_thread, few_pictures, tmp_path):
    few_pictures.rename(tmp_path / "1_真乃 🎤")
    command = training_command("letters")
    command[command.index("--data") + 1] = str(tmp_path / "1_真乃 🎤")
    env = {**one_thread, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=env, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert rb"folder: 1_\u771f\u4e43 \U0001f3a4 \xb7 5 \xd7 1" in done.stdout and b"steps: 3 of 3" in done.stdout
    command[command.index("--data") + 1] = str(tmp_path / "霧子")
    done = subprocess.run(command, env=env, capture_output=True, timeout=300)
    assert done.returncode == 1 and rb"\u9727\u5b50: no such folder" in done.stderr.splitlines()[-1]


def test_paths_that_no_system_has_are_one_line(training_command, one_thread, tmp_path):
    for option in ("--checkpoint", "--output"):
        command = training_command("long")
        command[command.index(option) + 1] = "x" * 300
        done = subprocess.run(command, env=one_thread, capture_output=True, text=True, timeout=300)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert done.stderr.strip().splitlines()[-1].startswith(f"error: {'x' * 80}"), option


@pytest.mark.parametrize("old, new, words", [
    ('output_name = "bad"', 'output_name = "a:b"', "error: output_name: 'a:b' cannot be a file name: it holds :"),
    ('optimizer_type = "AdamW"', 'optimizer_type = "AdamW"\noptimizer_args = ["momentum=0.9"]',
     "refused: optimizer AdamW does not take 'momentum=0.9'"),
])
def test_settings_are_judged_before_pictures_and_models(training_command, one_thread, tmp_path, old, new, words):
    bad = training_command("bad")
    config = tmp_path / "bad.toml"
    config.write_text(config.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    bad[bad.index("--data") + 1] = bad[bad.index("--checkpoint") + 1] = "looked at later"
    done = subprocess.run(bad, env=one_thread, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith(words)]


def test_all_that_must_change_is_said_at_once(training_command, one_thread, tmp_path):
    bad = training_command("bad")
    config = tmp_path / "bad.toml"
    text = config.read_text(encoding="utf-8") + "sdxl = true\nxformers = true\nresume = false\n"
    config.write_text(text, encoding="utf-8")
    dataset = tmp_path / "pictures.toml"
    dataset.write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\ncolor_aug = true\n', encoding="utf-8")
    bad[bad.index("--data"):bad.index("--data") + 2] = ["--dataset", str(dataset)]
    done = subprocess.run(bad, env=one_thread, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    told = done.stderr[done.stderr.index("error: "):].replace(f"{tmp_path}/", "").splitlines()
    assert [line.partition(": ")[0] if "cannot" not in line else line for line in told] == [
        "error: bad.toml cannot be run as it is, 1 thing to change:", "refused", "ignored", "off, or as it is anyway",
        "pictures.toml cannot be run as it is, 1 thing to change:", "refused"]
    assert told[-1] == ("refused: color_aug = true for a: pictures are trained in their own colours. Take it out, "
                        "or write color_aug = false")


def test_steps_alone_and_a_dataset_beside_the_configuration(training_command, one_thread, tmp_path, few_pictures):
    command = training_command("beside", batch=3)
    config = tmp_path / "beside.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("max_train_epochs = 1", "max_train_epochs = 0\nmax_train_steps = 5"),
                      encoding="utf-8")
    dataset = tmp_path / "pictures.toml"
    dataset.write_text(f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '{few_pictures}'\n", encoding="utf-8")
    command[command.index("--data"):command.index("--data") + 2] = ["--dataset", str(dataset)]
    done = subprocess.run(command, env=one_thread, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "batch size: 3" in done.stdout and "steps: 5 of 5" in done.stdout and "steps per epoch: 2" in done.stdout
    state = read_state(tmp_path / "beside" / "training.state")
    assert state.step == 5


def test_regularisation_masks_and_two_resolutions(training_command, one_thread, tmp_path, few_pictures):
    chance = np.random.default_rng(1)
    for folder in ("regular", "masks"):
        (tmp_path / folder).mkdir()
        for number, pixels in enumerate(chance.integers(0, 256, (5, 64, 64), dtype=np.uint8)):
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    command = training_command("all")
    config = tmp_path / "all.toml"
    config.write_text(config.read_text(encoding="utf-8") + "masked_loss = true\nprior_loss_weight = 0.5\n",
                      encoding="utf-8")
    dataset = tmp_path / "pictures.toml"
    dataset.write_text(f"""
[general]
enable_bucket = true
bucket_no_upscale = false
min_bucket_reso = 64
max_bucket_reso = 256
[[datasets]]
resolution = 64
[[datasets.subsets]]
image_dir = '{few_pictures}'
conditioning_data_dir = '{tmp_path / "masks"}'
[[datasets.subsets]]
image_dir = '{tmp_path / "regular"}'
is_reg = true
[[datasets]]
resolution = 128
batch_size = 1
[[datasets.subsets]]
image_dir = '{few_pictures}'
""", encoding="utf-8")
    command[command.index("--data"):command.index("--data") + 2] = ["--dataset", str(dataset)]
    done = subprocess.run(command, env=one_thread, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for line in ("buckets: by kohya's rule, in steps of 64", "masks: 5 from files, 0 from transparency",
                 "dataset 1: resolution 64, batch size 2", "dataset 2: resolution 128, batch size 1",
                 "regularisation: regular · 5 picture(s), shown 5 times an epoch, weight 0.5"):
        assert line in done.stdout, line
    state = read_state(tmp_path / "all" / "training.state")
    assert state.step == 10 and all(0 < loss < 10 for loss in state.losses)
    assert read(tmp_path / "all" / "all.safetensors").metadata["ss_num_reg_images"] == "5"


def test_help_and_a_wrong_command_line(one_thread, tmp_path):
    told = subprocess.run([sys.executable, str(ROOT / "train.py"), "--help"], env=one_thread, capture_output=True,
                          text=True, timeout=300)
    assert told.returncode == 0
    assert "--resume" in told.stdout
    wrong = subprocess.run([sys.executable, str(ROOT / "train.py"), "x.toml", "--comfyui", str(tmp_path)],
                           env=one_thread, capture_output=True, text=True, timeout=300)
    assert wrong.returncode == 2
    assert "is no ComfyUI" in wrong.stderr
