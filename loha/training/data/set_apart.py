"""Which pictures are set apart for validation. They follow from the seed alone, and are never trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ....text import show
from ...errors import SettingsError
from ..randomness import seed_for
from ..settings.pictures import DataOptions
from .dataset import TrainingData
from .index import PictureIndex
from .regularisation import refuse_empty
from .tags import character_of

_SHOWN = 3  # names of pictures


def training_data(index: PictureIndex, options: DataOptions) -> TrainingData:
    """The pictures to train on, with those that are set apart as their `validation`.

    A folder gives `round(share · pictures)`, as kohya's scripts count (sd-scripts, library/train_util.py,
    split_train_val), of each of its characters about that share: so one with few pictures loses none. A copy of a
    picture that is set apart goes with it.

    Raises:
        FileError: regularisation pictures are asked for and not there, or there are no others.
        SettingsError: nothing is left to validate on, or to train on, or a folder for validation is trained on too.
    """
    refuse_empty(index)
    shares = [folder.options.validation_split for folder in index.folders]
    if not any(shares):
        return TrainingData(index, options)
    by_folder: dict[int, list[int]] = defaultdict(list)
    for picture, folder in enumerate(index.folder_of.tolist()):
        by_folder[folder].append(picture)
    apart = {picture for folder, pictures in by_folder.items()
             for picture in _of_folder(index, pictures, shares[folder], options.validation_seed)}
    _refuse_empty(index, by_folder)
    _refuse_trained(index, apart)
    contents = [content.tobytes() for content in index.contents]
    apart_contents = {contents[picture] for picture in apart}
    training = [picture for picture, content in enumerate(contents) if content not in apart_contents]
    if not apart:
        raise SettingsError(
            f"validation_split {max(shares):g} sets none of {len(index)} pictures apart: it is less than half a "
            "picture of every folder. Raise it, or give a validation_folder.")
    if not training:
        raise SettingsError("all pictures are set apart for validation and none is left to train on: lower "
                            "validation_split, or add pictures")
    validation = sorted(set(range(len(index))) - set(training))
    # Each is seen many times, and always the same.
    kept = TrainingData(index.part(validation), replace(options, folders=(), latent_cache="memory"))
    return TrainingData(index.part(training), options, kept)


def _of_folder(index: PictureIndex, pictures: list[int], share: float, seed: int) -> list[int]:
    """Those of one folder's pictures that are set apart."""
    by_character: dict[str | None, list[int]] = defaultdict(list)
    for picture in pictures if share else ():
        by_character[character_of(index, picture)].append(picture)
    places: dict[int, float] = {}
    for members in by_character.values():
        members.sort(key=lambda picture: _lot(index, picture, seed))
        places |= {picture: (place + 0.5) / len(members) for place, picture in enumerate(members)}
    order = sorted(places, key=lambda picture: (places[picture], _lot(index, picture, seed)))
    return order[:round(share * len(pictures))]


def _lot(index: PictureIndex, picture: int, seed: int) -> int:
    # Of its name, not of its place: pictures that are added later do not change whose turn it is.
    return seed_for(seed, "set apart", index.folder(picture).label, index.names[picture])


def _refuse_empty(index: PictureIndex, by_folder: dict[int, list[int]]) -> None:
    """A folder chosen for validation as a whole, none of whose sub folders holds a picture."""
    found = {index.folders[folder].options.path for folder in by_folder}
    for folder in index.folders:
        path = folder.options.path
        if folder.options.validation_split == 1.0 and path not in found:
            raise SettingsError(f"{show(path, 200)}: no picture to validate on in it. Put some there, or take the "
                                "folder out.")


def _refuse_trained(index: PictureIndex, apart: Iterable[int]) -> None:
    """A folder for validation that is trained on too, or pictures of it."""
    def resolved(whole: bool) -> dict[Path, Path]:
        return {folder.path.resolve(): folder.path for folder in index.folders
                if (folder.options.validation_split == 1.0) == whole}

    both = resolved(True).keys() & resolved(False).keys()
    if both:
        raise SettingsError(f"{show(resolved(True)[min(both)], 200)}: this folder is for validation and trained on "
                            "too. Take it out of one of them.")
    whole = {picture for picture in apart if index.folder(picture).options.validation_split == 1.0}
    trained = {index.contents[picture].tobytes() for picture in range(len(index))
               if index.folder(picture).options.validation_split < 1.0}
    copies = sorted(picture for picture in whole if index.contents[picture].tobytes() in trained)
    if copies:
        names = ", ".join(show(index.path(picture), 120) for picture in copies[:_SHOWN])
        raise SettingsError(f"{len(copies)} picture(s) of a folder for validation are trained on too, as copies: "
                            f"{names}{', …' if len(copies) > _SHOWN else ''}. Take them out of one of the folders.")
