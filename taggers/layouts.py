"""The four layouts of taggers, and which of them a model is: decided by the files beside it, never by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..loha.errors import FileError
from ..text import show
from . import preprocessing
from .preprocessing import Prepare

_STAGES, _TAGS, _MAPPING = "preprocess.json", "selected_tags.csv", "tag_mapping.json"


@dataclass(frozen=True)
class Layout:
    """How a family of taggers is fed, and how it answers.

    Args:
        name: as its authors call it.
        size: pixels of a side, where the model leaves it open.
        channels_first: (3, size, size) instead of (size, size, 3).
        logits: whether the model's answers are logits instead of probabilities.
        outputs: parts of the names of outputs with the answers, the best first; an output "logits" always holds logits.
        thresholds: its authors' own, for general tags and for characters.
        prepare: a picture to the model's input; None where `preprocess.json` says it.
    """

    name: str
    size: int
    channels_first: bool
    logits: bool
    outputs: tuple[str, ...]
    thresholds: tuple[float, float]
    prepare: Prepare | None


WD = Layout("WD", 448, False, False, (), (0.35, 0.85), preprocessing.wd)
CL = Layout("cl_tagger", 448, True, True, (), (0.55, 0.60), preprocessing.cl)
CAMIE = Layout("camie v2", 512, True, True, ("refined",), (0.5, 0.5), preprocessing.camie)
PIXAI = Layout("pixai", 448, True, False, ("prediction", "output", "logits"), (0.30, 0.85), None)


@dataclass(frozen=True)
class TaggerFiles:
    """A model and the files beside it that belong to it.

    Args:
        thresholds: pixai's `thresholds.csv`, where there is one.
        stages: pixai's `preprocess.json`.
    """

    layout: Layout
    model: Path
    labels: Path
    stages: Path | None = None
    thresholds: Path | None = None

    @property
    def all(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.model, self.labels, self.stages, self.thresholds) if path)


def recognise(model: Path) -> TaggerFiles:
    """The layout of an .onnx file, by its neighbours.

    What bears the model's own name goes first, so that several models can share a folder: `NAME.csv` (WD),
    `NAME-metadata.json` (camie), `NAME_tag_mapping.json` (cl_tagger); then `tag_mapping.json`, `metadata.json`, and
    `selected_tags.csv` with `preprocess.json` (pixai) or without (WD).

    Raises:
        FileError: none of these is there; the text says what belongs beside which model.
    """
    stem, folder = model.stem, model.parent
    found: tuple[tuple[str, Callable[[Path], TaggerFiles]], ...] = (
        (f"{stem}_{_MAPPING}", lambda labels: TaggerFiles(CL, model, labels)),
        (f"{stem}-metadata.json", lambda labels: TaggerFiles(CAMIE, model, labels)),
        (f"{stem}_metadata.json", lambda labels: TaggerFiles(CAMIE, model, labels)),
        (f"{stem}.csv", lambda labels: TaggerFiles(WD, model, labels)),
        (_MAPPING, lambda labels: TaggerFiles(CL, model, labels)),
        ("metadata.json", lambda labels: TaggerFiles(CAMIE, model, labels)),
        (_TAGS, lambda labels: _with_selected_tags(model, labels)),
    )
    for name, files in found:
        if (folder / name).is_file():
            return files(folder / name)
    raise FileError(
        f"{show(model.name)}: there are no tags beside it. Put the file with the tags of this model into its folder: "
        f"{_TAGS} (WD; pixai with {_STAGES}), {_MAPPING} (cl_tagger), or {show(stem)}-metadata.json (camie).")


def _with_selected_tags(model: Path, labels: Path) -> TaggerFiles:
    stages, thresholds = model.parent / _STAGES, model.parent / "thresholds.csv"
    if not stages.is_file():
        return TaggerFiles(WD, model, labels)
    return TaggerFiles(PIXAI, model, labels, stages, thresholds if thresholds.is_file() else None)
