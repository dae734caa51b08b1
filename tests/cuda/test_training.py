"""A few steps of training on a GPU: in each precision beside the CPU's float32, and with an 8-bit optimiser."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch

_PIXELS = 64


def _posterior(pixels):
    """Latents that follow from the pictures: the VAE is not what is tested."""
    from shinymas_loha.loha.training.data import Posterior

    mean = torch.nn.functional.avg_pool2d(pixels, 8)
    mean = torch.cat([mean, mean[:, :1]], 1)
    return Posterior(mean, torch.ones_like(mean))


@pytest.fixture
def data(tmp_path):
    from PIL import Image
    from shinymas_loha.loha.training.data import DataOptions, FolderOptions, TrainingData, index_pictures

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (_PIXELS, _PIXELS), (60 * number, 128, 200 - 40 * number)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"girl {number}, smile", encoding="utf-8")
    options = DataOptions((FolderOptions(folder, repeats=1),), _PIXELS, 2, bucket_min=_PIXELS, bucket_max=_PIXELS,
                          latent_cache="memory")
    return TrainingData(index_pictures(options), options)


@pytest.fixture
def training(data, tmp_path):
    """A run of six steps: device, precision, whether the models' weights are halves, settings by keyword."""
    from shinymas_loha.bench.suite.small_models import small_models
    from shinymas_loha.loha.training.data import Latents
    from shinymas_loha.loha.training.run.folder import RunFolder
    from shinymas_loha.loha.training.run.loop import Training
    from shinymas_loha.loha.training.settings import TrainingSettings

    def make(device, precision, halves=False, **chosen):
        models = small_models((32, 64), 64, torch.device(device), _posterior)
        if halves:
            models.unet.half()
            models.text.model.half()
        settings = TrainingSettings(**{
            "network_rank": 64, "optimizer": "AdamW", "learning_rate": 1e-4, "lr_scheduler": "constant",
            "mixed_precision": precision, "max_token_length": 75, "max_train_epochs": 3, "save_precision": "fp32",
            "save_every_n_epochs": 0, "output_name": "gpu", **chosen})
        folder = RunFolder.create(tmp_path / "loras", settings)
        return Training(models, data, Latents(data, _posterior), settings, session="7", precision=precision,
                        folder=folder)

    return make


@pytest.mark.parametrize("module_set", ["linear", "all"])
@pytest.mark.parametrize(("precision", "halves", "allowed"), [
    ("fp32", False, 1e-3), ("bf16", False, 5e-2), ("fp16", False, 1e-2), ("fp16", True, 2e-2),
])
def test_losses_are_the_cpu_s(training, precision, halves, allowed, module_set):
    expected = training("cpu", "fp32", module_set=module_set)
    expected.run()
    run = training("cuda", precision, halves, module_set=module_set)
    loha = run.run()
    assert len(run.losses) == 6 and all(map(math.isfinite, run.losses))
    assert run.losses == pytest.approx(expected.losses, rel=allowed)
    assert bool(run.state().scaler) == (precision == "fp16")
    moved = [float(module.w2_a.abs().max()) for module in loha.modules.values()]
    assert all(map(math.isfinite, moved)) and max(moved) > 0


def test_gradient_checkpointing_changes_no_loss(training):
    plain, frugal = (training("cuda", "fp32", gradient_checkpointing=on) for on in (False, True))
    plain.run()
    frugal.run()
    assert frugal.losses == pytest.approx(plain.losses, rel=1e-4)


def test_eight_bit_adamw_saves_and_goes_on(training):
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    from shinymas_loha.loha.training.run.folder import STATE_FILE, read_state
    from shinymas_loha.loha.training.run.progress import Stopped, Watcher

    whole = training("cuda", "fp16", optimizer="AdamW8bit")
    assert not whole.notes, whole.notes  # it is the one that was asked for
    whole.run()
    first = training("cuda", "fp16", optimizer="AdamW8bit")
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        first.run(Watcher(should_stop=lambda: next(asked)))
    state = read_state(first.keeper.folder.path / STATE_FILE)
    assert state.step == 3
    kept, read = (list(_tensors(one.optimiser["state"])) for one in (first.state(), state))
    assert len(kept) == len(read) and all(
        torch.equal(one.cpu(), other.cpu()) for one, other in zip(kept, read, strict=True))
    eight_bit = sum(one.dtype is torch.uint8 for one in read)
    assert eight_bit, "no moment is kept in 8 bits"
    second = training("cuda", "fp16", optimizer="AdamW8bit")
    assert second.resume(state)
    second.run()
    assert second.losses == pytest.approx(whole.losses, rel=1e-2)


def _tensors(tree):
    """Those of nested mappings, by key: a state read from a file may have another order."""
    for key in sorted(tree, key=str):
        if isinstance(tree[key], torch.Tensor):
            yield tree[key]
        elif hasattr(tree[key], "items"):
            yield from _tensors(tree[key])
