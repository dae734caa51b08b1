"""Identity models in ComfyUI's models folder, and the second measure of Recognition Report, which takes one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from PIL import Image

from ..characters.catalogue import Cast
from ..loha import FileError
from ..text import show
from .typed_paths import bare, reach, typed_path

if TYPE_CHECKING:
    from ..characters.recognition import Identity
    from ..taggers.nearness import Asked

_FOLDER = "identity"
NO_MODEL = "none"


def register_folder() -> None:
    """Let ComfyUI look for identity models in models/identity, and wherever a person has moved it."""
    folder_paths.add_model_folder_path(_FOLDER, os.path.join(folder_paths.models_dir, _FOLDER))


def model_names() -> list[str]:
    """Every .onnx file in models/identity, in order, behind the word for none."""
    return [NO_MODEL, *(name for name in folder_paths.get_filename_list(_FOLDER) if name.lower().endswith(".onnx"))]


def model_path(name: str) -> Path | None:
    """Where the model of this name is; None where none was chosen. Raises FileError, with what to fetch."""
    if name in ("", NO_MODEL):
        return None
    path = folder_paths.get_full_path(_FOLDER, name) if name in model_names() else None
    if path is None:
        place = Path(folder_paths.get_folder_paths(_FOLDER)[0])
        raise FileError(
            f"identity_model: '{show(name)}' is not there. Nothing is downloaded by itself: get one, for example "
            "ccip-caformer-24-randaug-pruned/model_feat.onnx of deepghs/ccip_onnx on Hugging Face, put it into a "
            f"folder of its own in {show(place, 300)}, and press R to refresh the list; or choose {NO_MODEL}.")
    return Path(path)


class SecondMeasure:
    """The measure by an identity model, where one was chosen: opened, and the references found, before any work.

    Raises LohaError or CastError where either is not what it should be.
    """

    def __init__(self, cast: Cast, model: str, references: str) -> None:
        from ..taggers.identity import IdentityModel
        from ..taggers.references import find_references

        path, references = model_path(model), bare(references)
        self._cast, self._model = cast, IdentityModel(path) if path and references else None
        self._references = find_references(cast, typed_path(references), reach()) if self._model else None
        self._missing = []
        if path and not references:
            self._missing = ["identity: left out, for identity_model needs a folder of reference pictures in "
                             "references"]
        elif references and not path:
            self._missing = ["identity: left out, for references are looked at by an identity_model, and none is "
                             "chosen"]

    def steps(self, pictures: int) -> int:
        """How often progress will be told, at most."""
        return pictures + sum(map(len, self._references.pictures.values())) if self._references else 0

    def measure(self, asked: list[Asked], see: Callable[[Image.Image], tuple[str, ...]], known: Callable[[str], bool],
                notes: Path, progress: Callable[[], None]) -> tuple[Identity | None, list[str]]:
        """The measure if there is one, and lines about it."""
        if self._model is None:
            return None, self._missing
        from ..taggers.ledger import EmbeddingLedger
        from ..taggers.nearness import Measure

        measure = Measure(self._model, EmbeddingLedger(notes, self._model), see, known, progress)
        found, said = measure.identity(self._cast, asked, self._references)
        file = self._model.files[0]
        return found, [f"identity model: {show(file.parent.name)}/{show(file.name)}", *said]
