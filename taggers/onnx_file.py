"""What an .onnx file wants to open, read before onnxruntime sees it.

An ONNX model may keep its weights in further files, and names them itself. Field numbers: onnx.proto of the ONNX
project (IR version 13). The file is read in place, field by field; nothing of its weights is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..loha.errors import FileError
from ..loha.files.not_safetensors import looks_like
from ..loha.files.opening import open_regular, regular
from ..text import show

MAX_BYTES = 2 << 30  # what the format itself can hold
MAX_EXTERNAL_BYTES = 8 << 30
_MAX_FIELDS = 5_000_000  # large taggers have some 200 000

# Kind of message → field number → the kind of message in it. Only what leads to a tensor, and to where its data are.
_PARTS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {1: "text", 2: "text"},
}
_GRAPH = 7
# Kind of field → bytes behind its head: a number, 8 bytes, as many as the head says, 4 bytes.
_LENGTHS = {0: 0, 1: 8, 2: 0, 5: 4}
_LOCATION = b"location"
_LONGEST_TEXT = 4096


def check_model(path: Path) -> None:
    """Raise unless an .onnx file is one, is not too large, and opens no file outside its own folder.

    Raises:
        FileError: it cannot be read, is none, is over 2 GB, or keeps weights in a file that is not beside it,
            is missing, no regular file, or over 8 GB with the others.
    """
    try:
        size = regular(path).st_size
        if size > MAX_BYTES:
            raise FileError(f"has {size / 1e9:.1f} GB; an .onnx file holds at most {MAX_BYTES >> 30} GB.")
        with open_regular(path) as raw, io.BufferedReader(raw) as file:
            try:
                locations = _external_locations(file, size)
            except _NoOnnx as error:
                file.seek(0)
                raise FileError(f"is no ONNX model; {looks_like(file.read(512))}.") from error
        _check_external(path.parent, locations)
    except FileError as error:
        raise FileError(f"{show(path.name)} {error}") from error
    except OSError as error:
        raise FileError(f"{show(path.name)} cannot be read ({show(error.strerror or error)}).") from error


class _NoOnnx(Exception):
    pass


def _external_locations(file: BinaryIO, size: int) -> set[str]:
    """Every file that a tensor of the model says its data are in."""
    todo, found, fields, graphs = [("model", 0, size)], set(), 0, 0
    while todo:
        kind, start, end = todo.pop()
        texts = {}
        for number, at, stop in _fields(file, start, end):
            fields += 1
            if fields > _MAX_FIELDS:
                raise _NoOnnx
            part = _PARTS[kind].get(number) if stop > at else None
            graphs += kind == "model" and number == _GRAPH
            if part == "text":
                file.seek(at)
                texts[number] = file.read(min(stop - at, _LONGEST_TEXT))
            elif part:
                todo.append((part, at, stop))
        if texts.get(1) == _LOCATION:
            found.add(texts.get(2, b"").decode("utf-8", "replace"))
    if not graphs:
        raise _NoOnnx
    return found


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each field of a message; those that are numbers end where they start."""
    at = start
    while at < end:
        file.seek(at)
        tag = _varint(file)
        wire = tag & 7
        if wire not in _LENGTHS:
            raise _NoOnnx
        length = _varint(file) if wire in (0, 2) else 0
        begin = file.tell()
        at = begin + (length if wire == 2 else _LENGTHS[wire])
        if at > end:
            raise _NoOnnx
        yield tag >> 3, begin, at if wire == 2 else begin


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise _NoOnnx
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _NoOnnx


def _check_external(folder: Path, locations: set[str]) -> None:
    home, total = folder.resolve(), 0
    for location in sorted(locations):
        said = f"keeps weights in '{show(location)}'"
        # A star stands in the name by which onnxruntime means addresses in its own memory.
        if "\0" in location or "*" in location or not (folder / location).resolve().is_relative_to(home):
            raise FileError(f"{said}, which is outside its folder and is not opened; get the model from its authors, "
                            "or put that file beside it and not a link to it.")
        try:
            total += regular(folder / location).st_size
        except FileError as error:
            raise FileError(f"{said}, which {error} Put that file beside the model.") from error
    if total > MAX_EXTERNAL_BYTES:
        raise FileError(f"keeps {total / 1e9:.1f} GB of weights beside it; at most "
                        f"{MAX_EXTERNAL_BYTES >> 30} GB are opened.")
