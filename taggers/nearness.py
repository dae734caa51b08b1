"""The second measure of a report: pictures of one person, embedded, beside embedded references."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..characters.catalogue import Cast
from ..characters.recognition import ONE_PERSON, Embedded, Identity, one_person
from ..loha.errors import FileError
from ..loha.training.data.pictures import PictureError, read_pixels
from ..text import show
from .identity import IdentityModel
from .ledger import EmbeddingLedger, picture_key
from .references import References, some


class Asked(NamedTuple):
    """A picture, 8-bit RGB: who was asked for, at which strength of the LoHa, and whether it is a part of a scene."""

    name: str
    strength: float
    picture: Image.Image
    in_scene: bool = False


class Measure:
    """Embeds what shows one person, and says what is left out.

    Args:
        model: embeds; `ledger` knows what it has embedded.
        tags_of: what the tagger sees on a picture.
        known: whether the tagger knows a tag.
        progress: told after each picture; what it raises ends the run.
    """

    def __init__(self, model: IdentityModel, ledger: EmbeddingLedger, tags_of: Callable[[Image.Image], Iterable[str]],
                 known: Callable[[str], bool], progress: Callable[[], None]) -> None:
        self._model, self._ledger, self._progress = model, ledger, progress
        self._tags_of, self._known = tags_of, known

    def identity(self, cast: Cast, asked: Sequence[Asked], references: References) -> tuple[Identity | None, list[str]]:
        """The measure, and `key: value` lines about it; None where nothing can be compared, with the reason in a line.

        A reference that is pixel for pixel one of the pictures does not count: it would be its own nearest.

        Raises:
            FileError: the model fails.
        """
        if not any(map(self._known, ONE_PERSON)):
            return None, [f"identity: left out, for the tagger knows none of the tags {', '.join(ONE_PERSON)}, and "
                          "only pictures of one person count"]
        alone = [not one.in_scene and one_person(self._tags_of(one.picture)) for one in asked]
        own = {picture_key(one.picture) for one in asked}
        found, notes = self._embedded_references(references, own)
        scene = sum(one.in_scene for one in asked)
        counted = [one for one, is_alone in zip(asked, alone, strict=True) if is_alone and one.name in found]
        lacking = list(dict.fromkeys(one.name for one in asked if one.name not in found))
        notes.insert(0, f"identity, pictures: {len(counted)} of {len(asked)} count; left out: {scene} parts of scenes, "
                        f"{len(asked) - scene - sum(alone)} others that do not show one person by the tagger's tags, "
                        f"{sum(alone) - len(counted)} whose character has no references that count")
        if lacking:
            notes.append(f"identity, no references that count: {some(lacking)}")
        if len(found) < 2:
            return None, [*notes, "identity: left out, for fewer than two characters have reference pictures of one "
                                  "person: there is nobody to be taken for"]
        if not counted:
            return None, [*notes, "identity: left out, for no picture counts"]
        pictures = []
        for one in counted:
            pictures.append(Embedded(one.name, one.strength, self._embedding(one.picture)))
            self._progress()
        self._check_lengths([*(one.embedding for one in pictures), *(row for rows in found.values() for row in rows)])
        return Identity(cast, pictures, {name: np.stack(rows) for name, rows in found.items()}), notes

    def _embedded_references(self, references: References, own: set[str]) -> tuple[dict[str, list[np.ndarray]],
                                                                                  list[str]]:
        """name → embeddings of her references that count, and what does not count."""
        found: dict[str, list[np.ndarray]] = {}
        several, same, broken = 0, 0, []
        for name, paths in references.pictures.items():
            for path in paths:
                try:
                    picture = read_pixels(path, any_shape=True)
                except PictureError as error:
                    broken.append(f"{show(Path(path.parent.name, path.name), 120)}: {error.reason}")
                else:
                    is_same, is_alone = picture_key(picture) in own, one_person(self._tags_of(picture))
                    same, several = same + is_same, several + (not is_same and not is_alone)
                    if is_alone and not is_same:
                        found.setdefault(name, []).append(self._embedding(picture))
                self._progress()
        notes = []
        if several or same or broken:
            notes.append(f"identity, references left out: {several} that do not show one person by the tagger's tags, "
                         f"{same} that are among the pictures themselves, {len(broken)} that cannot be read")
        notes += (f"identity, not read: {one}" for one in broken[:5])
        if references.not_cast:
            notes.append(f"identity, folders called by nobody's name in the cast: {some(references.not_cast)}")
        return found, notes

    def _embedding(self, picture: Image.Image) -> np.ndarray:
        found = self._ledger.get(picture)
        if found is None:
            found = self._model.embed(picture)
            self._ledger.put(picture, found)
        return found

    def _check_lengths(self, embeddings: Iterable[np.ndarray]) -> None:
        if len(lengths := {len(one) for one in embeddings}) > 1:
            raise FileError(f"{show(self._model.files[0].name)}: gives embeddings of {min(lengths)} to {max(lengths)} "
                            "numbers; those of an identity model are all of one length. Choose another.")
