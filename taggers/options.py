"""What a person chooses about captions that a tagger writes."""

from __future__ import annotations

from dataclasses import dataclass

from ..loha.training.settings.fields import check, option

MISSING, APPEND, REPLACE = "only where missing", "append", "replace"
BY_CONFIDENCE, BY_MODEL, BY_ALPHABET = "confidence", "model", "alphabet"


@dataclass(frozen=True)
class TaggingOptions:
    """Which tags go into a caption, in which form, and what becomes of captions that are there.

    Construction raises `SettingsError`.
    """

    threshold: float = option(
        0.35, "How sure the tagger must be of a general tag; the model page has 0.35. 0: what its authors advise.",
        low=0.0, high=1.0)
    character_threshold: float = option(
        0.85, "How sure it must be of a character. 0: what its authors advise.", low=0.0, high=1.0)
    character_tags: bool = option(True, "Write the characters that the tagger knows, before all other tags.")
    existing: str = option(
        MISSING, "Captions that are there: leave them and write only where one is missing; append tags that they lack; "
        "or replace them.", choices=(MISSING, APPEND, REPLACE))
    prefix: str = option("", "Put before the tags of every caption: a name, for example.")
    exclude: str = option("", "Tags that are never written, with commas between.")
    order: str = option(
        BY_CONFIDENCE, "Order of the tags: surest first, as the model lists them, or by the alphabet.",
        choices=(BY_CONFIDENCE, BY_MODEL, BY_ALPHABET))
    underscores: bool = option(False, "Write long_hair instead of long hair.")
    escape: bool = option(False, "Write a backslash before each bracket, as prompts need it and training does not.")
    batch_size: int = option(4, "Pictures that go through the tagger together.", low=1, high=256)
    folder_name: bool = option(
        False, "Put the name of the picture's folder first, a character's for example; of 10_Kazano Hiori without 10_.")

    def __post_init__(self) -> None:
        check(self)
