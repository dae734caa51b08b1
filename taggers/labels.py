"""The tags that a model's outputs stand for, out of the file beside it."""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..loha.errors import FileError
from ..text import show
from .layouts import CAMIE, CL, TaggerFiles
from .text_files import read_json, read_text

GENERAL, CHARACTER = "general", "character"
# Danbooru's numbers of categories, and 9, which WD gives to its ratings.
_CATEGORIES = {"0": GENERAL, "1": "artist", "3": "copyright", "4": CHARACTER, "5": "meta", "9": "rating"}
_MOST = 1_000_000  # tags; camie has 70 527
_LONGEST = 300  # characters of a tag


@dataclass(frozen=True)
class Labels:
    """Names of the tags in the order of the model's outputs, and the category of each, in lower case.

    An output without a name has "" and no category.
    """

    names: tuple[str, ...]
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def of(self, category: str) -> tuple[int, ...]:
        """The outputs of this category, in order."""
        return tuple(at for at, one in enumerate(self.categories) if one == category)


def read_labels(files: TaggerFiles) -> Labels:
    """Read a model's tags.

    Raises:
        FileError: not the CSV or JSON that the layout has, or a tag that cannot stand in a caption.
    """
    path = files.labels
    found = _of_json(path, files) if files.layout in (CL, CAMIE) else _of_csv(path)
    labels = Labels(tuple(name for name, _ in found), tuple(category if name else "" for name, category in found))
    if not labels.of(GENERAL):
        raise FileError(f"{show(path.name)}: holds no general tags; get the file anew from where the model is from.")
    for at, name in enumerate(labels.names):
        if len(name) > _LONGEST or any(unicodedata.category(char)[0] == "C" for char in name):
            raise FileError(f"{show(path.name)}: tag {at} is no tag: '{show(name)}'; get the file anew.")
    return labels


def read_thresholds(path: Path) -> tuple[float | None, float | None]:
    """The thresholds for general tags and for characters in a `thresholds.csv`, None where it has none.

    Raises:
        FileError: not a CSV with `category` and `threshold`, or a threshold outside 0 to 1.
    """
    found: dict[str, float] = {}
    for line, row in _rows(path, ("category", "threshold")):
        try:
            value = float(row["threshold"])
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise FileError(f"{show(path.name)}, line {line}: '{show(row['threshold'])}' is no threshold from 0 to 1.")
        found[_CATEGORIES.get(row["category"].strip(), "")] = value
    return found.get(GENERAL), found.get(CHARACTER)


def _of_csv(path: Path) -> list[tuple[str, str]]:
    return [(row["name"], _CATEGORIES.get(row["category"].strip(), "")) for _, row in _rows(path, ("name", "category"))]


def _rows(path: Path, columns: tuple[str, ...]) -> Iterable[tuple[int, dict[str, str]]]:
    """Line number and fields of each row."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), restval="")
    try:
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise FileError(f"{show(path.name)}: has no column '{missing[0]}'; get the file anew.")
        for count, row in enumerate(reader):
            if count == _MOST:
                raise FileError(f"{show(path.name)}: lists over {_MOST} tags, which no tagger knows.")
            yield reader.line_num, row
    except csv.Error as error:
        raise FileError(f"{show(path.name)}, line {reader.line_num}: {show(error, 120)}; get the file anew.") from error


def _of_json(path: Path, files: TaggerFiles) -> list[tuple[str, str]]:
    """Both forms that are about: {"idx_to_tag": …, "tag_to_category": …} and {"0": {"tag": …, "category": …}}."""
    found = read_json(path)
    try:
        if files.layout is CAMIE:
            found = found["dataset_info"]["tag_mapping"]
        return _mapped(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"{show(path.name)}: not the tags of {files.layout.name} ({show(repr(error), 120)}); get the "
                        "file anew from where the model is from.") from error


def _mapped(found: dict[str, Any]) -> list[tuple[str, str]]:
    if "idx_to_tag" in found:
        names, of = found["idx_to_tag"], found["tag_to_category"]
        pairs = {int(at): (name, of.get(name, "")) for at, name in (
            names.items() if isinstance(names, dict) else enumerate(names))}
    else:
        pairs = {int(at): (one["tag"], one["category"]) for at, one in found.items()}
    if not pairs or min(pairs) < 0 or max(pairs) >= _MOST:
        raise ValueError("outputs are counted from 0 on")
    if not all(isinstance(part, str) for pair in pairs.values() for part in pair):
        raise TypeError("a tag is a text")
    blank = ("", "")
    return [(name, category.lower()) for name, category in (pairs.get(at, blank) for at in range(max(pairs) + 1))]
