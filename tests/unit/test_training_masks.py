"""Masks of the loss: read, scaled, cut and mirrored with their pictures, and multiplied as kohya's scripts do."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from shinymas_loha.loha.errors import FileError, SettingsError
from shinymas_loha.loha.training.data import (
    DataOptions,
    FolderOptions,
    Latents,
    LossWeights,
    describe_data,
    folders_digest,
    index_pictures,
    training_data,
)
from shinymas_loha.loha.training.data.preview import previews
from shinymas_loha.loha.training.kohya.dataset_file import read_dataset
from shinymas_loha.loha.training.kohya.run_file import read_run
from shinymas_loha.loha.training.objective.loss import Step
from shinymas_loha.loha.training.objective.noise import Draw
from shinymas_loha.loha.training.run.digest import run_digest
from shinymas_loha.loha.training.run.loop import Training
from shinymas_loha.loha.training.run.processes import World

SIZES = {"a": (64, 64), "b": (203, 199), "c": (90, 70)}


@pytest.fixture
def masked(tmp_path):
    """A folder of pictures with transparency, and one of masks."""
    chance = np.random.default_rng(0)
    for name in ("pictures", "masks"):
        (tmp_path / name).mkdir()
    for name, (width, height) in SIZES.items():
        pixels = chance.integers(0, 256, (height, width, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{name}.png")
        Image.fromarray(chance.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
            tmp_path / "masks" / f"{name}.webp", lossless=True)
    return tmp_path


def _data(root, *, masks=False, alpha=False, flip=False, **values):
    folder = FolderOptions(root / "pictures", 1, alpha_mask=alpha, masks=root / "masks" if masks else None, flip=flip)
    options = DataOptions((folder,), **{"resolution": 64, "bucket_min": 64, "batch_size": 1, "bucketing": "kohya",
                                        "upscale": True, **values})
    return training_data(index_pictures(options), options)


def _shrunk(channel: np.ndarray, size: int) -> np.ndarray:
    """float64 (size, …) means along the first axis, parts of pixels counted as such, by fine steps."""
    own = len(channel)
    fine = np.repeat(channel.astype(np.float64), size, axis=0)  # each cell is `own` of these
    return fine.reshape(size, own, *channel.shape[1:]).mean(1)


def _expected(channel: np.ndarray) -> np.ndarray:
    """A mask (8, 8) of a picture's channel, scaled to cover 64 × 64, cut evenly and averaged over 8 × 8 pixels."""
    height, width = channel.shape
    scale = 64 / min(height, width)
    scaled = int(width * scale + 0.5), int(height * scale + 0.5)
    pixels = np.rint(_shrunk(_shrunk(channel, scaled[1]).T, scaled[0]).T)
    left, top = (scaled[0] - 64) // 2, (scaled[1] - 64) // 2
    cut = pixels[top:top + 64, left:left + 64] / 255
    return np.array([[cut[y:y + 8, x:x + 8].mean() for x in range(0, 64, 8)] for y in range(0, 64, 8)])


def _channel(root, masks, name):
    if masks:
        return np.asarray(Image.open(root / "masks" / f"{name}.webp").convert("RGB"))[..., 0]
    return np.asarray(Image.open(root / "pictures" / f"{name}.png"))[..., 3]


@pytest.mark.parametrize("masks", [True, False], ids=["files", "transparency"])
def test_a_mask_goes_the_way_of_its_picture(masked, masks):
    data = _data(masked, masks=masks, alpha=True, flip=True, buckets=False)
    weights = LossWeights(data, 0)
    seen = set()
    for epoch in range(8):
        for batch in data.epoch(0, epoch):
            (item,), (flipped,) = batch.items, data.is_flipped(batch, 0)
            expected = _expected(_channel(masked, masks, data.index.names[item.picture][0]))
            found = weights(batch)
            assert found.shape == (1, 1, 8, 8)
            np.testing.assert_allclose(found[0, 0], expected[:, ::-1] if flipped else expected, atol=1e-4)
            assert torch.equal(found, weights(batch)), "the kept one is another"
            seen.add((item.picture, flipped))
    assert len(seen) == 6
    for picture in range(3):
        np.testing.assert_allclose(weights.of(picture)[0, 0], _expected(_channel(masked, masks, "abc"[picture])),
                                   atol=1e-4)


def test_colours_below_transparency_are_those_of_the_file(masked):
    plain, alpha = _data(masked), _data(masked, alpha=True)
    raw = np.asarray(Image.open(masked / "pictures" / "a.png"))
    found = alpha.picture(0, False).mul(255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(found, raw[..., :3])
    opacity = raw[..., 3:] / 255
    white = plain.picture(0, False).mul(255).permute(1, 2, 0).numpy()
    assert np.abs(white - (raw[..., :3] * opacity + 255 * (1 - opacity))).max() < 1.5
    keys = [Latents(data, lambda pixels: None, folder=masked)._key(0, False) for data in (plain, alpha)]
    assert keys[0] != keys[1]


def test_a_picture_without_transparency_counts_everywhere(masked):
    Image.new("RGB", (64, 64), "red").save(masked / "pictures" / "a.png")
    data = _data(masked, alpha=True, batch_size=3, buckets=False)
    (batch,) = data.epoch(0, 0)
    weights = LossWeights(data, 0)(batch)
    assert weights.shape == (3, 1, 8, 8)
    place = [item.picture for item in batch.items].index(0)
    assert torch.equal(weights[place], torch.ones(1, 8, 8)) and float(weights.min()) < 1


@pytest.mark.parametrize("kind", ["l2", "l1", "huber"])
def test_the_loss_is_multiplied_before_its_mean(tiny_models, tiny_settings, kind):
    def random(seed):
        return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))

    settings = tiny_settings(loss_type=kind, huber_schedule="constant", huber_c=0.3)
    prediction, drawn = random(1), Draw(random(2), random(3), torch.tensor([10, 500]))
    models = replace(tiny_models, predict=lambda noisy, timesteps, states: prediction)
    weights = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        found = Step(models, settings, "fp32").losses(random(4), drawn, ["a"], weights)
        whole = Step(models, settings, "fp32").losses(random(4), drawn, ["a"], torch.ones_like(weights))
        plain = Step(models, settings, "fp32").losses(random(4), drawn, ["a"])
    off = prediction.double().numpy() - drawn.noise.double().numpy()
    places = {"l2": off**2, "l1": abs(off), "huber": 2 * 0.3 * (np.hypot(off, 0.3) - 0.3)}[kind]
    np.testing.assert_allclose(found, (places * weights.double().numpy()).mean((1, 2, 3)), rtol=2e-6)
    assert torch.equal(whole, plain), "a white mask changes bits"


def test_a_run_learns_nothing_from_what_is_masked(tiny_models, tiny_settings, masked):
    for path in (masked / "masks").iterdir():
        Image.new("RGB", Image.open(path).size, "black").save(path)
    data = _data(masked, masks=True, buckets=False)
    run = Training(tiny_models, data, Latents(data, tiny_models.encode), tiny_settings(max_train_epochs=1),
                   session="1", precision="fp32")
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.run()
    assert run.losses == [0.0, 0.0, 0.0]
    drawn = [name for name, value in run.network.state_dict().items() if value.abs().sum() == 0]
    assert drawn and all(torch.equal(before[name], run.network.state_dict()[name]) for name in drawn)


def test_without_masks_nothing_is_weighed(masked):
    data = _data(masked)
    assert all(LossWeights(data, 0)(batch) is None for batch in data.epoch(0, 0)) and LossWeights(data, 0).of(0) is None
    assert data.index.masks == () and "masks" not in describe_data(data)


def test_validation_is_masked_too(masked):
    folder = FolderOptions(masked / "pictures", 1, masks=masked / "masks", validation_split=0.34)
    options = DataOptions((folder,), resolution=64, bucket_min=64)
    data = training_data(index_pictures(options), options)
    assert len(data.validation.index) == 1 and len(data.index.masks) == 2
    name = data.validation.index.names[0][0]
    assert data.validation.index.mask(0).path == masked / "masks" / f"{name}.webp"
    assert LossWeights(data.validation, 0).of(0) is not None


def test_the_preview_and_the_info_show_them(masked):
    white, dark = _data(masked, alpha=True), _data(masked, masks=True)
    assert "masks: 0 from files, 3 from transparency" in describe_data(white).splitlines()
    assert "masks: 3 from files, 0 from transparency" in describe_data(dark).splitlines()
    Image.new("L", SIZES["a"], 0).save(masked / "masks" / "a.webp", lossless=True)
    shown = previews(dark, lambda text: text.split())
    assert all("masked" in one.head() for one in shown)
    pixels = dark.picture(0, False).mul(255).permute(1, 2, 0).numpy()
    assert np.abs(shown[0].pixels - pixels / 4).max() <= 0.5 + 1e-3


def test_another_mask_is_another_run(masked, tiny_settings):
    def named(**how):
        return run_digest(_data(masked, **how), tiny_settings(), World(), 3, ())

    options = _data(masked, masks=True).options
    before, looked = named(masks=True), folders_digest(options)
    assert len({before, named(alpha=True), named(), named(masks=True, alpha=True)}) == 4
    Image.new("L", SIZES["a"], 9).save(masked / "masks" / "a.webp", lossless=True)
    assert named(masks=True) != before and folders_digest(options) != looked


def test_all_that_is_wrong_with_masks_is_said_at_once(masked):
    Image.new("L", (65, 64)).save(masked / "masks" / "a.webp")
    (masked / "masks" / "b.webp").write_bytes(b"nothing")
    os.remove(masked / "masks" / "c.webp")
    with pytest.raises(FileError) as caught:
        _data(masked, masks=True)
    lines = str(caught.value).replace(f"{masked}{os.sep}", "").splitlines()
    assert lines[0].startswith("3 picture(s) have no mask that can be used")
    assert lines[1] == f"masks{os.sep}a.webp: 65×64, and its picture has 64×64: a mask is as large as its picture"
    assert lines[2].startswith(f"masks{os.sep}b.webp: ") and lines[3] == f"pictures{os.sep}c.png: no mask of its name"
    os.rename(masked / "masks", masked / "other")
    with pytest.raises(FileError, match="this folder of masks cannot be read"):
        _data(masked, masks=True)


TOML = '[general]\n{}\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\n{}\n'


def test_kohyas_keys():
    (folder,) = read_dataset(TOML.format("masked_loss = true", 'conditioning_data_dir = "m"')).options.folders
    assert (str(folder.masks), folder.alpha_mask) == ("m", False)
    (folder,) = read_dataset(TOML.format("", "alpha_mask = true")).options.folders
    assert folder.masks is None and folder.alpha_mask
    (folder,) = read_dataset(TOML.format("alpha_mask = true", "alpha_mask = false")).options.folders
    assert not folder.alpha_mask
    idle = read_dataset(TOML.format("masked_loss = true", ""))
    assert idle.found.notes == ["masked_loss = true changes nothing without alpha_mask, or conditioning_data_dir in "
                                "[[datasets.subsets]]"]
    run = read_run("network_dim = 4\nmasked_loss = true\n", dataset=TOML.format("", 'conditioning_data_dir = "m"'))
    assert str(run.options.folders[0].masks) == "m" and not any("masked_loss" in line for line in run.lines)


@pytest.mark.parametrize(("general", "own", "words"), [
    ("masked_loss = false", 'conditioning_data_dir = "m"',
     'conditioning_data_dir = "m" for a: masked_loss is false. Write masked_loss = true, or take it out'),
    ("", "conditioning_data_dir = 3", "conditioning_data_dir = 3 for a: expected the path of a folder"),
    ("alpha_mask = 2", "", "alpha_mask = 2 in [general]: expected true or false"),
])
def test_what_cannot_be_is_said(general, own, words):
    with pytest.raises(SettingsError) as caught:
        read_dataset(TOML.format(general, own))
    assert words in str(caught.value)


def test_masks_are_of_a_datasets_folder():
    with pytest.raises(SettingsError, match="masks are of a dataset's folder. Write them into"):
        read_run('network_dim = 4\ntrain_data_dir = "x"\nconditioning_data_dir = "m"\n')
