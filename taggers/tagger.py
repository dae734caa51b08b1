"""A tagger, opened: pictures in, a probability for each tag out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..loha.errors import FileError
from ..text import show
from .labels import read_labels, read_thresholds
from .layouts import TaggerFiles, recognise
from .onnx_file import check_model
from .session import TYPES, first_line, onnxruntime, open_session
from .stages import MAX_SIDE, read_stages


class Tagger:
    """An ONNX model with its tags.

    Attributes:
        files, labels: which files it is, and what its outputs mean.
        size: pixels of a side of its input.
        batch: how many pictures it takes at a time, None where that is free.
        provider: what it runs on, "CPU" or "CUDA".
        thresholds: its authors' own, for general tags and for characters.

    Raises:
        SettingsError: onnxruntime is not there.
        FileError: files are missing, are not what they should be, do not belong together, or reach out of their folder.
    """

    def __init__(self, model: Path) -> None:
        runtime = onnxruntime()
        self.files = recognise(model)
        self._layout = self.files.layout
        check_model(model)
        self.labels = read_labels(self.files)
        self.thresholds = _thresholds(self.files)
        side = self._layout.size
        self._prepare = self._layout.prepare
        if self.files.stages:
            self._prepare, side = read_stages(self.files.stages)
        self._session = open_session(runtime, model)
        self.provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        self._input = self._session.get_inputs()[0]
        self.batch, self.size = self._shape(side)
        self._output, self._logits = self._find_output()

    def prepare(self, image: Image.Image) -> np.ndarray:
        """A picture, 8-bit RGB, as this model takes it: (size, size, 3) or (3, size, size), in the model's dtype."""
        return self._prepare(image, self.size).astype(TYPES[self._input.type], copy=False)

    def predict(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities, (n, tags) float32, of n prepared pictures.

        Raises:
            FileError: the model fails, or gives something else than a probability for each of its tags.
        """
        step = self.batch or len(prepared)
        parts = [self._run(prepared[at:at + step], step) for at in range(0, len(prepared), step)]
        return np.concatenate(parts)

    def _run(self, prepared: Sequence[np.ndarray], count: int) -> np.ndarray:
        batch = np.stack([*prepared, *[np.zeros_like(prepared[0])] * (count - len(prepared))])
        try:
            (found,) = self._session.run([self._output], {self._input.name: batch})
        # onnxruntime's own exceptions have no common base but this one.
        except Exception as error:
            raise FileError(f"{self._name}: onnxruntime cannot run it ({first_line(error)}). Lower batch_size if "
                            "memory is short, or get the model anew.") from error
        if getattr(found, "shape", None) != (count, len(self.labels)):
            raise self._mismatch(getattr(found, "shape", ("?",))[-1])
        values = found[:len(prepared)].astype(np.float32)
        if self._logits:
            with np.errstate(over="ignore"):  # a logit of -100 is a probability of 0
                values = 1 / (1 + np.exp(-values))
        if not ((values >= -1e-3) & (values <= 1.001)).all():  # NaN is neither
            raise FileError(f"{self._name}: its answers are no probabilities, as those of {self._layout.name} are. It "
                            "is damaged, or of another layout: see which files belong to it.")
        return values

    def _shape(self, side: int) -> tuple[int | None, int]:
        """Batch and side that the model asks for, where it leaves them open those of the layout."""
        shape, name = list(self._input.shape), self._layout.name
        if self._input.type not in TYPES or len(shape) != 4:
            raise FileError(f"{self._name}: takes {show(self._input.type)} {show(shape)}, no pictures; choose a "
                            "tagger.")
        channels = shape.pop(1 if self._layout.channels_first else 3)
        batch, *sides = (one if isinstance(one, int) and one > 0 else None for one in shape)
        wanted = {one for one in sides if one} or {side}
        if isinstance(channels, int) and channels != 3 or len(wanted) > 1 or (
                self.files.stages and wanted != {side}) or max(wanted) > MAX_SIDE:
            raise FileError(f"{self._name}: takes {show(self._input.shape)}, which is not how {name} is fed. The files "
                            "beside it say that it is one: take all of them from the same place.")
        return batch, wanted.pop()

    def _find_output(self) -> tuple[str, bool]:
        """The output with an answer for each tag, and whether it holds logits.

        By its name where the layout has one; else the last that can have as many answers as there are tags.
        """
        fitting = [one for one in self._session.get_outputs()
                   if not (one.shape and isinstance(one.shape[-1], int)) or one.shape[-1] == len(self.labels)]
        if not fitting:
            raise self._mismatch(*{one.shape[-1] for one in self._session.get_outputs() if one.shape})
        named = [one for part in self._layout.outputs for one in fitting if part in one.name.lower()]
        chosen = (named or fitting[-1:])[0]
        return chosen.name, self._layout.logits or chosen.name.lower() == "logits"

    def _mismatch(self, *answers: object) -> FileError:
        return FileError(f"{show(self.files.labels.name)} lists {len(self.labels)} tags, but {self._name} gives "
                         f"{show(' or '.join(map(str, sorted(answers, key=str))))} answers. Take both files from the "
                         "same place.")

    @property
    def _name(self) -> str:
        return show(self.files.model.name)


def _thresholds(files: TaggerFiles) -> tuple[float, float]:
    general, character = read_thresholds(files.thresholds) if files.thresholds else (None, None)
    own = files.layout.thresholds
    return own[0] if general is None else general, own[1] if character is None else character
