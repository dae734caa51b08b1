"""Read a LoHa file: one pass over its bytes, hashed while they are checked."""

from __future__ import annotations

import hashlib
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO

import torch
from torch import Tensor

from ...text import show
from ..errors import FileError
from ..module import Loha, Source
from . import container, tensor_names
from .assemble import assemble, require_adapter
from .not_safetensors import looks_like
from .opening import open_regular, reason

_CHUNK = 4 << 20


def read(path: str | os.PathLike[str]) -> Loha:
    """Read and validate a `.safetensors` LoHa into memory of its own (no memory map).

    The tensors are views of one block, in the file's dtypes, on the CPU. Modules of other kinds come
    untouched in `others`, tensors of no known kind among them; a module of an unusable name comes in
    `refused`. `tensor_name(name, suffix)` gives back the name that a tensor has in the file.

    Raises:
        FileError: the file cannot be read or must not be used; the text says where and why.
    """
    try:
        # In a node inference mode is on, and tensors born in it could never be trained further.
        with torch.inference_mode(False), open_regular(path) as file:
            return _read(path, file)
    except OSError as error:
        raise FileError(f"{_shown(path)}: cannot be read ({reason(error)}); try again.") from error
    except FileError as error:
        raise FileError(f"{_shown(path)}: {error}") from error


def _read(path: str | os.PathLike[str], file: BinaryIO) -> Loha:
    before = os.fstat(file.fileno())
    beginning = _header_bytes(file, before.st_size)
    header = container.parse_header(beginning[8:], before.st_size - len(beginning))
    groups = tensor_names.by_module(entry.name for entry in header.entries)
    require_adapter(groups)

    digest = hashlib.sha256(beginning)
    data = _private_memory(header.data_size)
    # sha256 releases the GIL: it runs beside the reading, and its tail beside the checks.
    with ThreadPoolExecutor(1, thread_name_prefix="shinymas-sha256") as hasher:
        window = memoryview(data.numpy())
        for start in range(0, len(window), _CHUNK):
            chunk = window[start:start + _CHUNK]
            _fill(file, chunk)
            hasher.submit(digest.update, chunk)
        after = os.fstat(file.fileno())
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise FileError("was changed while it was being read; try again once it is written.")
        loha = assemble(path, header, groups, data)
    source = Source(os.path.abspath(path), before.st_size, before.st_mtime_ns, digest.hexdigest())
    return replace(loha, source=source)


def _header_bytes(file: BinaryIO, size: int) -> bytes:
    """The length field and the header."""
    if size == 0:
        raise FileError("is empty; download it again.")
    if size > container.MAX_FILE:
        raise FileError(f"has {size} bytes, more than the {container.MAX_FILE} that a LoHa may have; "
                        "choose a LoHa file.")
    beginning = file.read(512)
    length = int.from_bytes(beginning[:8], "little")
    if len(beginning) < 10 or beginning[8:9] != b"{":
        raise FileError(f"is not a safetensors file: {looks_like(beginning)}.")
    if length > container.MAX_HEADER:
        raise FileError(f"has a header of {length} bytes, more than the {container.MAX_HEADER} that a LoHa may have "
                        "(names and metadata together); save it with less metadata.")
    if length + 8 > size:
        raise FileError(f"is cut short: its header needs {length + 8} bytes, the file has {size}; download it again.")
    header = bytearray(length + 8)
    kept = min(len(beginning), len(header))
    header[:kept] = beginning[:kept]
    file.seek(kept)
    _fill(file, memoryview(header)[kept:])
    return bytes(header)


def _private_memory(size: int) -> Tensor:
    """`size` bytes, uint8. In huge pages where there are some: faulting small ones in takes thrice the reading."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel built without them
        block.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(block, dtype=torch.uint8)


def _fill(file: BinaryIO, chunk: memoryview) -> None:
    while chunk:
        got = file.readinto(chunk)
        if not got:
            raise FileError("became shorter while it was being read; try again once it is written.")
        chunk = chunk[got:]


def _shown(path: str | os.PathLike[str]) -> str:
    return show(os.path.basename(os.fspath(path)) or os.fspath(path))
