"""The latent caches: the same numbers as without, encoded once, and rebuilt where broken."""

import os

import pytest
import torch
from PIL import Image
from shinymas_loha.loha.errors import FileError, SettingsError
from shinymas_loha.loha.training.data import (
    DataOptions,
    FolderOptions,
    Latents,
    Posterior,
    TrainingData,
    index_pictures,
)
from torch.nn.functional import avg_pool2d


class Encoder:
    """A posterior that depends on the pixels; counts how many pictures it was given."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, pixels: torch.Tensor) -> Posterior:
        self.seen += len(pixels)
        pooled = avg_pool2d(pixels, 8)
        four = torch.cat([pooled, pooled.mean(1, keepdim=True)], 1)
        return Posterior(four * 2 - 1, four * 0.1)


def _data(folder, cache: str, **values) -> TrainingData:
    options = DataOptions((FolderOptions(folder, flip=True),), latent_cache=cache, batch_size=2, **values)
    return TrainingData(index_pictures(options), options)


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for at in range(5):
        image = Image.new("RGB", (128, 192), (40 * at, 0, 0))
        image.paste("white", (0, 0, 64, 64))
        image.save(pictures / f"{at}.png")
    return pictures


def _epoch(data, latents, seed=1):
    return [latents(batch, seed) for batch in data.epoch(seed, 0)]


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_caches_give_what_encoding_gives_and_encode_once(folder, tmp_path, cache):
    plain, cached = _data(folder, "none"), _data(folder, cache)
    encoder = Encoder()
    latents = Latents(cached, encoder, folder=tmp_path / "cache")
    for _ in range(2):
        for ours, fresh in zip(
            _epoch(cached, latents), _epoch(plain, Latents(plain, Encoder())), strict=True
        ):
            assert torch.equal(ours.mean, fresh.mean) and torch.equal(ours.std, fresh.std)
    assert encoder.seen == 5
    assert ours.mean.shape == (1, 4, 24, 16)


def test_without_a_cache_everything_is_encoded_each_time(folder):
    data = _data(folder, "none")
    encoder = Encoder()
    latents = Latents(data, encoder)
    _epoch(data, latents)
    _epoch(data, latents)
    assert encoder.seen == 10


def test_the_disk_cache_outlives_the_run_and_knows_content_and_settings(folder, tmp_path):
    def seen(vae_key="a", **values):
        data = _data(folder, "disk", **values)
        encoder = Encoder()
        _epoch(data, Latents(data, encoder, folder=tmp_path / "cache", vae_key=vae_key))
        return encoder.seen

    assert seen() == 5
    assert seen() == 0
    assert seen(vae_key="b") == 5
    assert seen(fit="pad") == 5
    Image.new("RGB", (128, 192), "green").save(folder / "3.png")
    assert seen() == 1


@pytest.mark.parametrize("harm", [
    lambda raw: b"", lambda raw: raw[:40], lambda raw: raw[:-1], lambda raw: b"\xff" * len(raw),
    lambda raw: raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:], lambda raw: b"\2\0\0\0\0\0\0\0[]",
    lambda raw: b"\2\0\0\0\0\0\0\0{}",
])
def test_a_corrupt_file_is_rebuilt(folder, tmp_path, harm):
    data = _data(folder, "disk")
    good = _epoch(data, Latents(data, Encoder(), folder=tmp_path / "cache"))
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 5 and {file.suffix for file in files} == {".safetensors"}
    before = files[2].read_bytes()
    files[2].write_bytes(harm(before))
    encoder = Encoder()
    again = _epoch(data, Latents(data, encoder, folder=tmp_path / "cache"))
    assert encoder.seen == 1 and files[2].read_bytes() == before
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(good, again, strict=True))


def test_leftovers_of_killed_runs_are_swept(folder, tmp_path):
    (tmp_path / "cache").mkdir()
    old, young = (tmp_path / "cache" / name for name in ("a.1.tmp", "b.2.tmp"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    Latents(_data(folder, "disk"), Encoder(), folder=tmp_path / "cache")
    assert not old.exists() and young.exists()


def test_a_cache_that_cannot_be_written_says_what_to_do(folder, tmp_path):
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    data = _data(folder, "disk")
    with pytest.raises(FileError, match="cannot be written: .* set latent_cache to memory or none"):
        _epoch(data, Latents(data, Encoder(), folder=tmp_path / "cache"))
    with pytest.raises(SettingsError, match="no folder for it was given"):
        Latents(data, Encoder())


def test_a_picture_that_breaks_during_the_run_is_named(folder):
    data = _data(folder, "none")
    (folder / "2.png").write_bytes(b"gone wrong")
    with pytest.raises(FileError, match=r"2\.png: not a JPEG.*Mend it or take it out"):
        _epoch(data, Latents(data, Encoder()))


def test_a_sample_is_mean_plus_std_times_noise():
    posterior = Posterior(torch.full((1, 4, 2, 2), 2.0), torch.full((1, 4, 2, 2), 0.5))
    assert torch.equal(posterior.sample(torch.ones(1, 4, 2, 2)), torch.full((1, 4, 2, 2), 2.5))
