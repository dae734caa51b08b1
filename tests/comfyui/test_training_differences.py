"""Going on from an interrupted run: exactly where nothing has changed, and otherwise told in what it has."""

import os
import subprocess

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file


def lines(text, *keys):
    return [line for line in text.splitlines() if line.startswith(keys)]


def run(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def repaint(path):
    """Other pixels; the file's name, size and time as before."""
    before = path.stat()
    pixels = np.random.default_rng(9).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_has_changed_is_named_before_the_first_step(
        training_command, one_thread, few_pictures, base, checkpoint, tmp_path):
    run(training_command("first"), one_thread)
    kept = str(tmp_path / "first" / "first.safetensors")

    same = run(training_command("first", 1, 2, 2, "--resume", kept), one_thread)
    assert lines(same, "resumed", "differs", "not compared") == ["resumed: exactly, after step 3"] * 2
    assert "steps: 6 of 6" in same
    kept = str(tmp_path / "first" / "first.safetensors")

    # The base model, its VAE, a picture and a caption, and a setting.
    weights = load_file(base / "models" / "checkpoints" / checkpoint)
    changed = next(name for name in sorted(weights) if name.startswith("model.diffusion_model.") and "to_q" in name)
    weights[changed][0, 0] += 1
    save_file(weights, tmp_path / "other.safetensors")
    vae = {name.removeprefix("first_stage_model."): tensor.clone() for name, tensor in weights.items()
           if name.startswith("first_stage_model.")}
    vae["taesd_encoder.1.conv.0.weight"] += 1e-3
    save_file(vae, tmp_path / "vae.safetensors")
    repaint(few_pictures / "3.png")
    (few_pictures / "0.txt").write_text("boy", encoding="utf-8")
    command = training_command("second", 1, 2, 3, "--resume", kept)
    command[command.index("--checkpoint") + 1] = str(tmp_path / "other.safetensors")
    config = tmp_path / "second.toml"
    config.write_text(config.read_text(encoding="utf-8") + f"""
learning_rate = 0.0005
vae = "{tmp_path / 'vae.safetensors'}"
""", encoding="utf-8")
    told = run(command, one_thread)
    expected = [
        "resumed: weights alone, 5 thing(s) differ from the interrupted run",
        "differs: learning_rate: 0.0005, was 0.001",
        "differs: U-Net: another one, its weights are not the same",
        "differs: VAE: another one, its weights are not the same",
        "differs: pictures: 1 has other content (3.png)",
        "differs: pictures: 1 has another caption (0.png)",
    ]
    assert lines(told, "resumed", "differs") == expected * 2  # at the start, and in the report
    assert told.index("resumed: weights alone") < told.index("steps: 9 of 9")
    assert (tmp_path / "second" / "second.safetensors").is_file()


def test_in_comfyui_a_picture_that_was_painted_over_is_noticed(server, run_graph, node, checkpoint, base, sample_loha):
    folder = base / "input" / "repainted"
    folder.mkdir(parents=True)
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")

    def graph(epochs, resume="", patched=False):
        prompt = {
            "model": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
            "data": node("ShinyMasTrainingData", folder="repainted", resolution=64, bucket_min=64, bucket_max=64,
                         batch_size=2),
            "settings": node("ShinyMasTrainingSettings", module_set="attention-mlp", network_rank=2,
                             max_token_length=75, max_train_epochs=epochs, module_filter="*attn2_to_q",
                             train_text_encoder=False, optimizer="AdamW", output_name="painted"),
            "train": node("ShinyMasTrainLoha", model=["model", 0], clip=["model", 1], vae=["model", 2],
                          data=["data", 0], settings=["settings", 0]),
        }
        if resume:
            prompt["kept"] = node("ShinyMasLoadLoha", lora_name=resume)
            prompt["train"]["inputs"]["resume"] = ["kept", 0]
        if patched:
            prompt["loha"] = node("ShinyMasLoadLoha", lora_name=sample_loha)
            prompt["apply"] = node("ShinyMasApplyLoha", model=["model", 0], loha=["loha", 0])
            prompt["train"]["inputs"]["model"] = ["apply", 0]
        return prompt

    def resumed(*args, **kwargs):
        return lines(run_graph(graph(*args, **kwargs))["train"]["text"][0], "resumed", "differs")

    run_graph(graph(1))
    assert resumed(2, "painted/painted.safetensors") == ["resumed: exactly, after step 2"]
    repaint(folder / "1.png")
    assert resumed(3, "painted/painted.safetensors") == [
        "resumed: weights alone, 1 thing(s) differ from the interrupted run",
        "differs: pictures: 1 has other content (1.png)"]
    assert "differs: pictures: 1 has other content (1.png)" in server.log.read_text(encoding="utf-8")
    # A LoHa on the model is another base model.
    assert "differs: U-Net: another one, its weights are not the same" in resumed(
        4, "painted-2/painted.safetensors", patched=True)
    assert torch.is_tensor(next(iter(load_file(base / "models/loras/painted-2/painted.safetensors").values())))
