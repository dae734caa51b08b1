"""Captions: probabilities to tags, tags to the line that kohya's tools read."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from ..characters.tags import tag_key
from .labels import CHARACTER, GENERAL, Labels
from .options import BY_ALPHABET, BY_CONFIDENCE, TaggingOptions

_SEPARATOR = ", "
_TWO_LETTERS = re.compile(r"[^\W_]{2}")
_COMMAS = re.compile(r"[,，、\n]")


class CaptionWriter:
    """Turns the probabilities of one picture into tags, and tags into captions.

    Args:
        labels: of the tagger.
        options: what was chosen; a threshold of 0 stands for that in `thresholds`.
        thresholds: what the tagger's authors advise, for general tags and for characters.
    """

    def __init__(self, labels: Labels, options: TaggingOptions, thresholds: tuple[float, float]) -> None:
        self.thresholds = (options.threshold or thresholds[0], options.character_threshold or thresholds[1])
        self._options = options
        self._prefix = _parts(options.prefix)
        spelt = [_spelt(name, options) for name in labels.names]
        unwanted = {tag_key(part) for part in (*_parts(options.exclude), *self._prefix)}
        wanted = [at for at, name in enumerate(labels.names) if name and tag_key(name) not in unwanted]
        self._names = np.array(spelt, dtype=object)
        self._general = np.intersect1d(wanted, labels.of(GENERAL)).astype(np.intp)
        self._characters = np.intersect1d(wanted, labels.of(CHARACTER)).astype(np.intp)

    def tags(self, probabilities: np.ndarray) -> list[str]:
        """The tags of a picture, characters first, out of (tags,) probabilities. Equals keep the model's order."""
        found = self._chosen(probabilities, self._general, self.thresholds[0])
        if self._options.character_tags:
            found = self._chosen(probabilities, self._characters, self.thresholds[1]) + found
        return list(dict.fromkeys(found))

    def caption(self, tags: Iterable[str]) -> str:
        """Prefix and tags in one line; "" where there are neither."""
        return _SEPARATOR.join([*self._prefix, *tags])

    def appended(self, caption: str, tags: Iterable[str]) -> str:
        """`caption` with what it lacks of the prefix before it and of the tags behind it; itself if it lacks nothing.

        What it has stays to the letter and in its order, its lines joined: kohya's tools read the first line only.
        """
        lines = [line for part in caption.splitlines() if (line := part.strip(" \t,"))]
        there = {tag_key(part) for line in lines for part in _parts(line)}
        before, behind = ([tag for tag in more if tag_key(tag) not in there] for more in (self._prefix, tags))
        return _SEPARATOR.join([*before, *lines, *behind]) if before or behind else caption

    def _chosen(self, probabilities: np.ndarray, among: np.ndarray, threshold: float) -> list[str]:
        sure = among[probabilities[among] >= np.float32(threshold)]
        if self._options.order == BY_CONFIDENCE:
            sure = sure[np.argsort(-probabilities[sure], kind="stable")]
        names = self._names[sure].tolist()
        return sorted(names) if self._options.order == BY_ALPHABET else names


def _parts(text: str) -> list[str]:
    """What stands between commas, of either width, in what a person typed."""
    return [part for one in _COMMAS.split(text) if (part := " ".join(one.split()))]


def _spelt(name: str, options: TaggingOptions) -> str:
    """A tag as it is written. Faces such as ^_^ and <o>_<o> keep their underscores: without them they are none."""
    if not options.underscores and len(name) > 3 and _TWO_LETTERS.search(name):
        name = name.replace("_", " ")
    return name.replace("(", "\\(").replace(")", "\\)") if options.escape else name
