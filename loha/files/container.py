"""The safetensors container: a checked header, and tensors as views of one block of bytes.

Layout (github.com/huggingface/safetensors): 8 bytes little-endian header length, the header as JSON
(name → dtype, shape, [start, end) within the data; `__metadata__` → strings), the data.
Read by ourselves because the library accepts duplicate names, empty tensors and headers of 100 MB,
and because one private block is faster than 1510 tensors asked for one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from ...text import show
from ..errors import FileError

MAX_FILE = 4 << 30
MAX_HEADER = 100_000_000  # safetensors' own limit; tag counts of 100 000 pictures need some of it
MAX_TENSORS = 20_000
_MAX_DIMS = 8
_MAX_NUMBER = 1 << 48  # above any real offset; JSON integers may have thousands of digits
_AGAIN = "the file is damaged: download it again"

_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Entry(NamedTuple):
    """One tensor's line in the header; `start` and `end` are bytes within the data."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


class Header(NamedTuple):
    """Entries in the order of their data, without holes or overlaps."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, str]

    @property
    def data_size(self) -> int:
        return self.entries[-1].end if self.entries else 0


class Run(NamedTuple):
    """Neighbouring tensors of one dtype, and all their elements as one flat tensor."""

    entries: tuple[Entry, ...]
    flat: Tensor


def parse_header(text: bytes, data_size: int) -> Header:
    """Check a header against the `data_size` bytes that follow it.

    Raises:
        FileError: the header is not one of a whole, unambiguous safetensors file.
    """
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise FileError(f"its header is not valid JSON; {_AGAIN}.") from error
    if not isinstance(content, dict):
        raise FileError(f"its header is not a JSON object; {_AGAIN}.")
    metadata = _metadata(content.pop("__metadata__", None))
    if len(content) > MAX_TENSORS:
        raise FileError(f"holds {len(content)} tensors, more than the {MAX_TENSORS} that a LoHa may have; "
                        "choose a LoHa file.")
    entries = sorted((_entry(name, fields) for name, fields in content.items()), key=lambda entry: entry.start)
    end = 0
    for entry in entries:
        if entry.start != end:
            flaw = "overlaps its neighbour" if entry.start < end else "leaves a hole before it"
            raise FileError(f"tensor '{show(entry.name)}' {flaw} (starts at byte {entry.start}, "
                            f"expected {end}); {_AGAIN}.")
        end = entry.end
    if data_size < end:
        raise FileError(f"is cut short: its tensors need {end} bytes, {data_size} are there; "
                        "download it again.")
    if data_size > end:
        raise FileError(f"has {data_size - end} bytes after its last tensor; {_AGAIN}.")
    return Header(tuple(entries), metadata)


def format_header(entries: Iterable[Entry], metadata: Mapping[str, str]) -> bytes:
    """Return the length field and the header, padded with spaces to a multiple of 8 bytes.

    The same content always gives the same bytes: metadata is sorted by key.
    """
    content: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    for entry in entries:
        content[entry.name] = {"dtype": _DTYPE_NAMES[entry.dtype], "shape": list(entry.shape),
                               "data_offsets": [entry.start, entry.end]}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def arrange(tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> tuple[Entry, ...]:
    """Lay tensors out as the safetensors library does: widest dtype first, then by name."""
    entries: list[Entry] = []
    start = 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: (-item[1][0].itemsize, item[0])):
        end = start + prod(shape) * dtype.itemsize
        entries.append(Entry(name, dtype, shape, start, end))
        start = end
    return tuple(entries)


def runs(entries: Iterable[Entry], data: Tensor) -> list[Run]:
    """Cut `data` (uint8, 1-D, the whole data section) into runs: views, copied only where unaligned."""
    result = []
    for dtype, group in groupby(entries, key=lambda entry: entry.dtype):
        members = tuple(group)
        part = data[members[0].start:members[-1].end]
        aligned = part if members[0].start % dtype.itemsize == 0 else part.clone()
        result.append(Run(members, aligned.view(dtype)))
    return result


def tensors(cut: Iterable[Run]) -> dict[str, Tensor]:
    """Return every tensor of the runs by name, as a view."""
    named = {}
    for run in cut:
        sizes = [(entry.end - entry.start) // entry.dtype.itemsize for entry in run.entries]
        for entry, flat in zip(run.entries, run.flat.split(sizes), strict=True):
            named[entry.name] = flat.view(entry.shape)
    return named


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise FileError(f"the name '{show(twice)}' stands twice in its header, so that programs would disagree "
                        "on what it holds; save it anew with the tool that made it.")
    return content


def _metadata(content: object) -> dict[str, str]:
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise FileError("its metadata holds something other than strings; save it anew with the tool that made it.")
    try:
        "".join([*content, *content.values()]).encode("utf-8")
    except UnicodeEncodeError as error:
        raise FileError(f"its metadata is not valid Unicode; {_AGAIN}.") from error
    return content


def _entry(name: str, fields: object) -> Entry:
    try:
        label, shape, (start, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
        numbers = (*shape, start, end)
        sound = type(label) is str and {*map(type, numbers)} == {int}
        sound = sound and min(numbers) >= 0 and max(numbers) <= _MAX_NUMBER
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise FileError(f"tensor '{show(name)}' is not described by dtype, shape and two offsets; {_AGAIN}.")
    dtype = _DTYPES.get(label)
    if dtype is None:
        raise FileError(f"tensor '{show(name)}' is of dtype {show(label)}, which is not supported "
                        f"(supported: {', '.join(_DTYPES)}); save it as F16.")
    if len(shape) > _MAX_DIMS:
        raise FileError(f"tensor '{show(name)}' has {len(shape)} dimensions, at most {_MAX_DIMS} are sensible; "
                        f"{_AGAIN}.")
    if 0 in shape:
        raise FileError(f"tensor '{show(name)}' is empty (shape {shape}: a rank or size of 0); "
                        "train or save it anew.")
    if prod(shape) * dtype.itemsize != end - start:
        raise FileError(f"tensor '{show(name)}' of shape {shape} in {label} needs {prod(shape) * dtype.itemsize} "
                        f"bytes, the header gives it {end - start}; {_AGAIN}.")
    return Entry(name, dtype, tuple(shape), start, end)

