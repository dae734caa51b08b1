"""Captions read as the trainer reads them, for the statistics: what Tag Statistics puts together."""

from pathlib import Path

from shinymas_loha.characters.statistics import BY_FOLDER, NotACaption, Tallies, count_captions
from shinymas_loha.loha.training.data.captions import CaptionError, read_caption


def trained(path: str) -> str:
    try:
        return read_caption(path)
    except CaptionError as error:
        raise NotACaption(error.reason) from error


def count(root, told_by=BY_FOLDER, names=None, progress=lambda done, total: None) -> Tallies:
    return count_captions(Path(root), told_by, names or {}, trained, progress)
