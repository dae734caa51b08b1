"""The tags on pictures in memory, noted one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from PIL import Image

from ..characters.tags import tag_key
from .captions import CaptionWriter
from .ledger import Ledger
from .options import TaggingOptions
from .tagger import Tagger


def tags_of(tagger: Tagger, pictures: Iterable[Image.Image], threshold: float, ledger: Ledger,
            progress: Callable[[int], None]) -> list[tuple[str, ...]]:
    """The general tags of each picture, 8-bit RGB.

    Args:
        threshold: 0 for what the tagger's authors advise.
        ledger: pictures in it are not looked at again.
        progress: told after each picture how many are done; what it raises ends the run.

    Raises:
        FileError: the model fails.
    """
    see = seer(tagger, threshold, ledger)
    found = []
    for picture in pictures:
        found.append(see(picture))
        progress(len(found))
    return found


def seer(tagger: Tagger, threshold: float, ledger: Ledger) -> Callable[[Image.Image], tuple[str, ...]]:
    """What gives the general tags of one picture. Takes and raises as `tags_of`."""
    writer = CaptionWriter(tagger.labels, TaggingOptions(threshold=threshold, character_tags=False), tagger.thresholds)

    def see(picture: Image.Image) -> tuple[str, ...]:
        tags = ledger.get(picture)
        if tags is None:
            tags = tuple(writer.tags(tagger.predict([tagger.prepare(picture)])[0]))
            ledger.put(picture, tags)
        return tags

    return see


def known_to(tagger: Tagger) -> Callable[[str], bool]:
    """Whether a tag is among those that the tagger can find."""
    keys = {tag_key(name) for name in tagger.labels.names if name}
    return lambda tag: tag_key(tag) in keys
