"""Regularisation pictures: how often each is shown beside the pictures that are trained on."""

from __future__ import annotations

from collections import defaultdict

from ....text import show
from ...errors import FileError
from .index import PictureIndex


def showings(index: PictureIndex) -> list[int]:
    """Times that each picture is shown in an epoch: its folder's repeats, those of regularisation pictures fitted.

    A dataset's regularisation pictures are together shown as often as its others: each once in its repeats and in
    order, until that is reached (later ones are not shown at all), or else one after the other once more
    (kohya-ss/sd-scripts, library/train_util.py, DreamBoothDataset).
    """
    times = [index.folder(picture).repeats for picture in range(len(index))]
    wanted: dict[int, int] = defaultdict(int)
    regular: dict[int, list[int]] = defaultdict(list)
    for picture, repeats in enumerate(times):
        options = index.folder(picture).options
        if options.is_reg:
            regular[options.dataset].append(picture)
        else:
            wanted[options.dataset] += repeats
    for dataset, pictures in regular.items():
        lacking = wanted[dataset]
        for picture in pictures:
            if lacking <= 0:
                times[picture] = 0
            lacking -= times[picture]
        # Not once all of them were not needed.
        each, more = divmod(max(0, lacking), len(pictures))
        for place, picture in enumerate(pictures):
            times[picture] += each + (place < more)
    return times


def refuse_empty(index: PictureIndex) -> None:
    """Raise `FileError` where regularisation pictures are asked for and a folder for them has none, or where there
    are no others."""
    if not any(folder.options.is_reg for folder in index.folders):
        return
    used = {id(index.folder(picture).options) for picture in range(len(index))}
    for folder in index.folders:
        if folder.options.is_reg and id(folder.options) not in used:
            raise FileError(f"{show(folder.options.path, 200)}: no regularisation picture in it that can be used. Put "
                            "some there, or take the folder out.")
    if all(index.folder(picture).options.is_reg for picture in range(len(index))):
        raise FileError("there are regularisation pictures alone, and none to train on: add a folder of them")
