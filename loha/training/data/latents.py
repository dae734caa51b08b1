"""Posteriors of the VAE: encoded afresh, kept in memory, or kept on disk."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ....text import show
from ...errors import FileError, SettingsError
from ..settings.hyper_parameters import KOHYA
from .buckets import placed
from .dataset import Batch, TrainingData

_LEFTOVER_AGE = 3600  # seconds
_LAYOUT = 1  # Part of the key: raise it when what is stored changes.


@dataclass(frozen=True, eq=False)
class Posterior:
    """What the VAE's encoder says of pictures: `mean` and `std`, (batch, 4, height / 8, width / 8).

    On the device and in the dtype that `encode` gave; out of a cache, on the CPU. Not yet scaled
    by 0.18215. Where the encoder gives no distribution, `std` is zero.
    """

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std · noise, for `noise` ~ N(0, I) of the same shape."""
        return self.mean + self.std * noise


Encode = Callable[[Tensor], Posterior]


class Latents:
    """Posteriors of batches, through the cache that the data options chose.

    Args:
        data: the pictures.
        encode: pixels (batch, 3, height, width) float32 in 0 … 1 → `Posterior`.
        folder: where the disk cache lies; made if missing.
        vae_key: names the VAE and its precision, such as a hash: latents of another one are not used.

    Raises:
        SettingsError: a disk cache without a folder.
    """

    def __init__(
        self, data: TrainingData, encode: Encode, *, folder: Path | None = None, vae_key: str = ""
    ) -> None:
        if data.options.latent_cache == "disk" and folder is None:
            raise SettingsError("latent_cache is disk, and no folder for it was given")
        self._data = data
        self._encode = encode
        self._folder = folder
        self._vae_key = vae_key
        self._cache: dict[tuple[int, bool], Posterior] = {}
        self._content: dict[int, str] = {}
        if data.options.latent_cache == "disk":
            _sweep(folder)

    def __call__(self, batch: Batch, seed: int) -> Posterior:
        """The batch's posterior.

        With a cache each picture is encoded on its own: what is kept then does not depend on its
        neighbours, and a resumed run finds the same numbers.

        Raises:
            PictureError: a picture broke or vanished since it was indexed.
            FileError: the disk cache cannot be written.
        """
        if self._data.options.latent_cache == "none":
            return self._encode(self._data.pixels(batch, seed))
        pictures = (item.picture for item in batch.items)
        found = self._found(list(zip(pictures, self._data.is_flipped(batch, seed), strict=True)))
        return Posterior(torch.cat([each.mean for each in found]), torch.cat([each.std for each in found]))

    def of(self, picture: int) -> Posterior:
        """One picture's posterior, not mirrored: (1, 4, height / 8, width / 8) on the CPU. Raises as a call."""
        return self._found([(picture, False)])[0]

    def _found(self, wanted: list[tuple[int, bool]]) -> list[Posterior]:
        """Of each (picture, flipped): out of the cache, or encoded and then in it."""
        kept = {one: self._kept(*one) for one in wanted}
        lacking = [one for one, posterior in kept.items() if posterior is None]
        for one, pixels in zip(lacking, self._data.pictures(lacking), strict=True):
            posterior = self._encode(pixels[None])
            kept[one] = Posterior(posterior.mean.cpu().contiguous(), posterior.std.cpu().contiguous())
            self._keep(*one, kept[one])
        return [kept[one] for one in wanted]

    def _kept(self, picture: int, flipped: bool) -> Posterior | None:
        if self._data.options.latent_cache == "disk":
            width, height = self._data.index.bucket(picture)
            return _read(self._path(picture, flipped), (height // 8, width // 8))
        return self._cache.get((picture, flipped))

    def _keep(self, picture: int, flipped: bool, posterior: Posterior) -> None:
        match self._data.options.latent_cache:
            case "disk":
                _write(self._path(picture, flipped), posterior)
            case "memory":
                self._cache[picture, flipped] = posterior

    def _path(self, picture: int, flipped: bool) -> Path:
        return self._folder / f"{self._key(picture, flipped)}.safetensors"

    def _key(self, picture: int, flipped: bool) -> str:
        if picture not in self._content:
            path = self._data.index.path(picture)
            try:
                self._content[picture] = sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise FileError(f"{show(path, 200)} cannot be read: {error.strerror}") from error
        parts = (
            _LAYOUT, self._content[picture], self._data.index.bucket(picture), self._data.options.fit,
            flipped, self._vae_key,
        )
        options = self._data.options_of(picture)
        if options.bucketing == KOHYA:  # the same bucket, and scaled otherwise
            parts += (placed(*self._data.index.sizes[picture].tolist(), options)[1],)
        if self._data.index.folder(picture).options.alpha_mask:  # what is transparent is not white
            parts += ("alpha",)
        return sha256(repr(parts).encode("utf-8")).hexdigest()


def _read(path: Path, size: tuple[int, int]) -> Posterior | None:
    """A kept posterior, or None where there is none or its bytes are not what was written."""
    try:
        raw = path.read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        if json.loads(raw[8:start])["__metadata__"]["sha256"] != sha256(raw[start:]).hexdigest():
            return None
        tensors = load(raw)
        posterior = Posterior(tensors["mean"], tensors["std"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return posterior if tuple(posterior.mean.shape[2:]) == size else None


def _sweep(folder: Path) -> None:
    """Take away what killed runs left half written; a live run's file is younger than the limit."""
    oldest = time.time() - _LEFTOVER_AGE
    for leftover in folder.glob("*.tmp"):
        with suppress(OSError):
            if leftover.stat().st_mtime < oldest:
                leftover.unlink()


def _write(path: Path, posterior: Posterior) -> None:
    """Written whole or not at all: a killed run leaves no half file under the final name.

    Lighter than `files.atomic`: nothing is lost with a cache's file, so none is flushed to disk, and
    the folder, which may hold 100 000, is not looked through at every write.
    """
    tensors = {"mean": posterior.mean, "std": posterior.std}
    plain = save(tensors)
    body = plain[8 + int.from_bytes(plain[:8], "little"):]
    # Not mkstemp: its files are readable by their owner alone, whatever the umask says.
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(save(tensors, {"sha256": sha256(body).hexdigest()}))
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise FileError(
            f"the latent cache {show(path.parent, 200)} cannot be written: {error.strerror}. "
            "Free some space, or set latent_cache to memory or none."
        ) from error
