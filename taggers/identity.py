"""An identity model, opened: a picture in, an embedding out; two of one character lie close together.

Any ONNX model of images will do that takes one picture and gives one vector: the feature extractors of CCIP, CLIP's
image encoders, and their kin.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..loha.errors import FileError
from ..text import show
from .onnx_file import check_model
from .preprocessing import normalised
from .session import TYPES, first_line, onnxruntime, open_session
from .stages import MAX_SIDE, read_stages

LONGEST = 16_384  # numbers of an embedding; those of today have 4 096 at most
_MOST_AT_A_TIME = 64
_STAGES = "preprocess.json"
_SIDE = 384  # CCIP's, where the model leaves it open
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Parts of the names of outputs with the embedding, where there are several outputs.
_OUTPUTS = ("embed", "feat")


class IdentityModel:
    """An ONNX model that embeds pictures.

    Attributes:
        files: the model, and the `preprocess.json` beside it where there is one.
        size: pixels of a side of its input.
        provider: what it runs on, "CPU" or "CUDA".

    Raises:
        SettingsError: onnxruntime is not there.
        FileError: a file is missing, is not what it should be, takes no pictures, gives no embedding, or reaches out of
            its folder.
    """

    def __init__(self, model: Path) -> None:
        runtime = onnxruntime()
        check_model(model)
        stages = model.parent / _STAGES
        self.files = (model, stages) if stages.is_file() else (model,)
        self._prepare, side = read_stages(stages) if stages.is_file() else (ccip, None)
        self._session = open_session(runtime, model)
        self.provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise FileError(f"{self._name}: takes {len(inputs)} inputs ({_names(inputs)}), not one picture; choose an "
                            "identity model.")
        self._input = inputs[0]
        self._batch, self._channels_first, self.size = self._shape(side)
        self._output = self._find_output()

    def embed(self, image: Image.Image) -> np.ndarray:
        """The embedding of a picture, 8-bit RGB: (d,) float32 of length 1.

        Raises:
            FileError: the model fails, or gives something else than one vector that has a direction.
        """
        prepared = self._prepare(image, self.size)
        if not self._channels_first:
            prepared = prepared.transpose(1, 2, 0)
        batch = np.zeros((self._batch, *prepared.shape), TYPES[self._input.type])
        batch[0] = prepared
        try:
            (found,) = self._session.run([self._output], {self._input.name: batch})
        # onnxruntime's own exceptions have no common base but this one.
        except Exception as error:
            raise FileError(f"{self._name}: onnxruntime cannot run it ({first_line(error)}). Close what takes memory, "
                            "or get the model anew.") from error
        shape = getattr(found, "shape", ())
        if len(shape) != 2 or shape[0] != self._batch or not 2 <= shape[1] <= LONGEST:
            raise self._no_embedding(shape)
        vector = found[0].astype(np.float64)
        length = np.linalg.norm(vector)
        if not np.isfinite(length) or length == 0:
            raise FileError(f"{self._name}: its answer to a picture is {'all zero' if length == 0 else 'not finite'}, "
                            "so nothing can be compared with it. The model is damaged, or was made half precision "
                            "without care: get it anew, in float32.")
        return (vector / length).astype(np.float32)

    def _shape(self, side: int | None) -> tuple[int, bool, int]:
        """Pictures at a time, whether channels come first, and the side, as the model asks for them."""
        shape = list(self._input.shape)
        whole = [one if isinstance(one, int) and one > 0 else None for one in shape]
        if self._input.type not in TYPES or len(shape) != 4 or 3 not in whole[1::2] and None not in whole[1::2]:
            raise FileError(f"{self._name}: takes {show(self._input.type)} {show(shape)}, not pictures of 3 channels; "
                            "choose an identity model. Of CCIP that is model_feat.onnx.")
        channels_first = whole[1] == 3 or whole[3] != 3 and whole[1] is None
        batch, *sides = (one for at, one in enumerate(whole) if at != (1 if channels_first else 3))
        if batch and batch > _MOST_AT_A_TIME:
            raise FileError(f"{self._name}: takes {batch} pictures at a time, over {_MOST_AT_A_TIME}; choose another "
                            "identity model.")
        wanted = {one for one in sides if one} or {side or _SIDE}
        if len(wanted) > 1 or max(wanted) > MAX_SIDE:
            raise FileError(f"{self._name}: takes {show(shape)}, not squares of 1 to {MAX_SIDE} pixels; choose another "
                            "identity model.")
        if side and wanted != {side}:
            raise FileError(f"{self._name}: takes squares of {wanted.pop()} pixels, but {_STAGES} beside it makes them "
                            f"{side}. Take both files from the same place.")
        return batch or 1, channels_first, wanted.pop()

    def _find_output(self) -> str:
        """The only output, or of several the only one that is called an embedding or features."""
        outputs = self._session.get_outputs()
        if len(outputs) > 1:
            named = [one for one in outputs if any(part in one.name.lower() for part in _OUTPUTS)]
            if len(named) != 1:
                raise FileError(f"{self._name}: gives {len(outputs)} answers ({_names(outputs)}), of which not exactly "
                                "one is called an embedding or features; choose an identity model.")
            outputs = named
        shape = outputs[0].shape
        width = shape[-1] if shape and isinstance(shape[-1], int) else 2
        if shape and len(shape) != 2 or not 2 <= width <= LONGEST:
            raise self._no_embedding(shape)
        if outputs[0].type not in (*TYPES, "tensor(double)"):
            raise FileError(f"{self._name}: answers with {show(outputs[0].type)}, no embedding; choose an identity "
                            "model.")
        return outputs[0].name

    def _no_embedding(self, shape: object) -> FileError:
        return FileError(f"{self._name}: its answer is {show(list(shape))}, not one vector of 2 to {LONGEST} numbers "
                         "for each picture; choose an identity model.")

    @property
    def _name(self) -> str:
        return show(self.files[0].name)


def ccip(image: Image.Image, size: int) -> np.ndarray:
    """(3, size, size), RGB, CLIP's mean and deviation: the whole picture pulled to a square, bilinear.

    Source: `imgutils/metrics/ccip.py` of deepghs, who publish CCIP.
    """
    return normalised(image.resize((size, size), Image.Resampling.BILINEAR), _CLIP_MEAN, _CLIP_STD)


def _names(puts: list) -> str:
    return show(", ".join(one.name for one in puts), 120)
