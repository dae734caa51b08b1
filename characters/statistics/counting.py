"""Captions counted one after another, whatever their number."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ...text import show
from ..catalogue import Character, fold, name_keys
from ..errors import CastError
from .captions import NotACaption, Tags, name_key, name_of, pieces
from .folders import CaptionFolder, MayRead, Passed, captions_in, folders_of, split_label
from .looks import contradictions
from .tallies import Place, Tallies

BY_FOLDER, BY_NAME, BY_FIRST_TAG = "folder", "name in tags", "first tag"
TOLD_APART_BY = (BY_FOLDER, BY_NAME, BY_FIRST_TAG)
_STEP = 500  # captions between two signs of progress
_BOUND_EVERY = 200_000  # tags


def known_names(text: str, people: Iterable[Character]) -> dict[str, str]:
    """Folded name → name: those of a text, one a line or between commas; where it has none, those of `people`, by
    everything that finds them."""
    typed = [name for line in text.splitlines() for piece in line.split(",") if (name := name_of(piece))]
    if typed:
        return {key: name for name in reversed(typed) for key in name_keys(Character(name, ()))}
    found: dict[str, str] = {}
    for who in people:
        for key in name_keys(who):
            found.setdefault(key, who.name)
    return found


def count_captions(root: Path, told_by: str, names: Mapping[str, str], read: Callable[[str], str],
                   progress: Callable[[int, int], None], may_read: MayRead = lambda path: True) -> Tallies:
    """Count the captions in a folder and all below it.

    Args:
        told_by: one of `TOLD_APART_BY`.
        names: of `known_names`, for `BY_NAME`.
        read: path → the caption as it is trained; raises NotACaption.
        progress: called with (captions read, captions) and ends the count by raising.
        may_read: asked of the folders that links lead to.

    Raises CastError where there is no folder or no caption.
    """
    folders = folders_of(root, may_read)
    total = sum(folder.captions for folder in folders)
    if not total:
        pictures = sum(folder.pictures for folder in folders)
        raise CastError(f"{show(root, 200)}: no caption (.txt or .caption) " + (
            f"beside its pictures ({pictures}); write some, with Tag Images for example" if pictures else
            "and no picture; give the folder that holds them"))
    count = _Count(Tallies(told_by), root, names, read)
    for folder in folders:
        count.take(folder, lambda done: progress(min(done, total), total))
    progress(total, total)
    return count.finished()


class _Count:
    def __init__(self, tallies: Tallies, root: Path, names: Mapping[str, str], read: Callable[[str], str]) -> None:
        self.tallies, self.root, self.names, self.read = tallies, root, names, read
        self.tags = Tags()
        self.named: dict[str, str] = {}  # tag → the name that it is, "" for none
        self.label = root.name or root.resolve().name
        self.seen = self.pictures = self.added = 0
        self.passed = Passed()

    def take(self, folder: CaptionFolder, progress: Callable[[int], None]) -> None:
        whose = name_of(split_label(folder.top or self.label)[1])
        captions: Counter[str] = Counter()
        endings: Counter[str] = Counter()
        for path in captions_in(folder, self.passed):
            if self.seen % _STEP == 0:
                progress(self.seen)
            if self.added > _BOUND_EVERY:
                self.added = 0
                self.tallies.bound()
            self.seen += 1
            try:
                text = self.read(path)
            except NotACaption as problem:
                self.tallies.refuse(os.path.relpath(path, self.root), str(problem))
                continue
            endings[os.path.splitext(path)[1]] += 1
            captions.update(self._add(text, whose))
        self.pictures += folder.pictures
        repeats = split_label(os.path.basename(folder.path))[0]
        if folder.captions:
            ending = min(endings, key=lambda one: (-endings[one], one)) if endings else ".txt"
            self.tallies.places.append(Place(folder.path, repeats or 1, folder.pictures, ending, captions))

    def _add(self, text: str, whose: str) -> list[str]:
        """Count one caption; the keys of those whom it is of."""
        typed = pieces(text)
        tags = set(map(self.tags.__getitem__, typed))
        tags.discard("")
        self.tallies.captions += 1
        names = self._names(typed, tags, whose)
        self.tallies.nobody += not names
        self.tallies.several += len(names) > 1
        self.added += len(tags) * len(names)
        wrong = contradictions(tags, of_one_picture=True)
        for name in names:
            tally = self.tallies.of(name)
            tally.pictures += 1
            tally.tags.update(tags)
            tally.add_name(name)
            if wrong:
                tally.contradictions.update(wrong)
        return [name_key(name) for name in names]

    def _names(self, typed: list[str], tags: set[str], whose: str) -> set[str]:
        told_by = self.tallies.told_by
        if told_by == BY_FOLDER:
            return {whose} - {""}
        if told_by == BY_FIRST_TAG:
            first = next((name for piece in typed if (name := piece.strip())), "")
            return {name_of(first)} - {""}
        names = set()
        for tag in tags:
            name = self.named.get(tag)
            if name is None:
                if len(self.named) >= Tags.MOST:
                    self.named.clear()
                name = self.named[tag] = self.names.get(fold(tag), "")
            if name:
                names.add(name)
        return names

    def finished(self) -> Tallies:
        """The tallies, with notes on what a person would want to know of the files."""
        tallies, passed = self.tallies, self.passed
        tallies.bound()
        if passed.not_files:
            tallies.refused["not a regular file"] += passed.not_files
        if tallies.told_by == BY_FOLDER:
            self._drop_beside_folders()
        if passed.without_picture:
            tallies.notes.append(f"captions without a picture, not counted: {passed.without_picture}")
        bare = self.pictures - tallies.captions - tallies.refused.total()
        if self.pictures and bare > 0:
            tallies.notes.append(f"pictures without a caption, not counted: {bare}")
        return tallies

    def _drop_beside_folders(self) -> None:
        """Captions in the chosen folder itself are nobody's where the characters have folders below it."""
        tallies = self.tallies
        own = [place for place in tallies.places if place.path == str(self.root)]
        repeats, name = split_label(self.label)
        key = name_key(name_of(name))
        if not own or len(tallies.by_key) < 2 or repeats is not None or key not in tallies.by_key:
            return
        if any(key in place.captions for place in tallies.places if place is not own[0]):
            return
        dropped = tallies.by_key.pop(key)
        own[0].captions.clear()
        tallies.nobody += dropped.pictures
        tallies.notes.append(f"captions beside the characters' folders, of nobody: {dropped.pictures}")
