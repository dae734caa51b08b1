"""Write a LoHa as a `.safetensors` file that kohya's tools, A1111 and ComfyUI read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...text import show
from ..errors import FileError
from ..module import Loha, Source
from . import container
from .atomic import write_whole
from .finite import non_finite
from .hashes import kohya_hashes
from .tensor_names import tensor_name


def save(
    loha: Loha,
    path: str | os.PathLike[str],
    dtype: torch.dtype = torch.float16,
    *,
    overwrite: bool = False,
    metadata: Mapping[str, str] | None = None,
    rename: Callable[[str], str] | None = None,
) -> Source:
    """Write `loha` whole or not at all, and return what was written.

    The same values give the same bytes. Factors, cores and DoRA scales are stored in `dtype` (any
    floating dtype), alphas as F32, modules of other kinds as they are; refused modules have no tensors to write.

    Args:
        path: the file; missing folders are made. See `resolve_name` for names that people typed.
        overwrite: replace an existing file.
        metadata: instead of `loha.metadata`; the two `sshs_*` hashes are computed anew in either case.
        rename: module name → name in the file.

    Raises:
        FileError: the file exists or cannot be written, a value is not finite in `dtype`, two modules
            get one name, or metadata is not strings.
    """
    target = Path(path)
    try:
        with torch.inference_mode(False):
            chunks = _serialize(loha, dtype, loha.metadata if metadata is None else metadata, rename)
    except FileError as error:
        raise FileError(f"{show(target.name)}: {error}") from error
    written = write_whole(target, chunks, overwrite)
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return Source(os.path.abspath(target), written.st_size, written.st_mtime_ns, digest.hexdigest())


def _serialize(
    loha: Loha, dtype: torch.dtype, metadata: Mapping[str, str], rename: Callable[[str], str] | None
) -> tuple[bytes, memoryview]:
    """The header and the data of the file."""
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise FileError("metadata must be strings, keys and values; nothing was written.")
    ours, untouched = _named(loha, rename)
    placed = {key: (dtype, tuple(tensor.shape)) for key, tensor in ours.items()}
    placed |= {key: (torch.float32, ()) for key in ours if key.endswith(".alpha")}
    placed |= {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in untouched.items()}
    if not placed:
        raise FileError("there is nothing to write: the LoHa has no modules.")
    entries = container.arrange(placed)
    data = torch.empty(entries[-1].end, dtype=torch.uint8)
    runs = container.runs(entries, data)
    sources = ours | untouched
    for key, place in container.tensors(runs).items():
        place.copy_(sources[key].detach())
    if found := next(non_finite(runs, ours), None):
        raise FileError(f"tensor '{show(found)}' holds NaN or infinity, or numbers too large for "
                        f"{str(dtype).removeprefix('torch.')}; nothing was written. Save it as float32, or train anew.")

    view = memoryview(data.numpy())
    try:
        kept = {key: value for key, value in metadata.items() if not key.startswith("sshs_")}
        header = container.format_header(entries, kept | kohya_hashes(entries, kept, view))
    except UnicodeEncodeError as error:
        raise FileError("metadata and names must be valid Unicode; nothing was written.") from error
    if len(header) - 8 > container.MAX_HEADER:
        raise FileError(f"metadata and names need {len(header)} bytes, more than the {container.MAX_HEADER} "
                        "that a file may have; nothing was written. Shorten the metadata.")
    return header, view


def _named(loha: Loha, rename: Callable[[str], str] | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of LoHa modules and those of other kinds, by their names in the file."""
    ours: dict[str, Tensor] = {}
    untouched: dict[str, Tensor] = {}
    for name, module in loha.modules.items():
        tensors = module.tensors()
        if module.alpha is not None:
            tensors["alpha"] = torch.tensor(module.alpha, dtype=torch.float64)
        _add(ours, rename(name) if rename else name, tensors)
    for name, tensors in loha.others.items():
        _add(untouched, rename(name) if rename else name, tensors)
    if twice := ours.keys() & untouched.keys():
        raise FileError(f"two modules would both be written as '{show(min(twice))}'.")
    return ours, untouched


def _add(named: dict[str, Tensor], name: str, tensors: Mapping[str, Tensor]) -> None:
    for suffix, tensor in tensors.items():
        key = tensor_name(name, suffix)
        if key in named:
            raise FileError(f"two modules would both be written as '{show(key)}'.")
        named[key] = tensor
