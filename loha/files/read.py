"""Read a LoHa file: one pass over its bytes, hashed while they are checked."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import BinaryIO

import torch
from torch import Tensor

from ..errors import FileError, show
from ..value import Loha, LohaModule, Source
from . import container, grouping, peft
from .finite import non_finite
from .looks import looks_like
from .opening import open_regular, reason
from .validate import loha_module

_CHUNK = 4 << 20


def read(path: str | os.PathLike[str]) -> Loha:
    """Read and validate a `.safetensors` LoHa into memory of its own (no memory map).

    The tensors are views of one block, in the file's dtypes, on the CPU. Modules of other kinds come
    untouched in `others`, tensors of no known kind among them; a module of an unusable name comes in
    `refused`. `join(name, suffix)` of `grouping` gives back a tensor's name.

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
    groups = grouping.group(entry.name for entry in header.entries)
    _require_adapter(groups)

    digest = hashlib.sha256(beginning)
    data = torch.empty(header.data_size, dtype=torch.uint8)
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
        loha = _build(path, header, groups, data)
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


def _fill(file: BinaryIO, chunk: memoryview) -> None:
    while chunk:
        got = file.readinto(chunk)
        if not got:
            raise FileError("became shorter while it was being read; try again once it is written.")
        chunk = chunk[got:]


def _require_adapter(groups: grouping.Groups) -> None:
    if not groups:
        raise FileError("holds no tensors; download it again.")
    if not any(suffix in grouping.KNOWN for suffixes in groups.values() for suffix in suffixes):
        keys = [key for suffixes in groups.values() for key in suffixes.values()]
        kind = " It looks like a checkpoint." if any(key.startswith("model.diffusion_model.") for key in keys) else ""
        raise FileError(f"holds no LoHa or LoRA: none of its {len(keys)} tensors belongs to one "
                        f"(first: '{show(keys[0])}').{kind} Choose a LoHa file.")


def _build(path: str | os.PathLike[str], header: container.Header, groups: grouping.Groups, data: Tensor) -> Loha:
    runs = container.runs(header.entries, data)
    tensors = container.tensors(runs)
    modules: dict[str, LohaModule] = {}
    others: dict[str, dict[str, Tensor]] = {}
    refused: dict[str, str] = {}
    numbers: set[str] = set()

    for name, suffixes in groups.items():
        if flaw := grouping.flaw(name):
            refused[grouping.shown_once(name, refused)] = flaw
        elif grouping.LOHA.isdisjoint(suffixes):
            if grouping.SHARED.issuperset(suffixes):
                refused[name] = f"it holds {' and '.join(suffixes)} but no factors"
            else:
                others[name] = {suffix: tensors[key] for suffix, key in suffixes.items()}
        else:
            ours = {suffix: key for suffix, key in suffixes.items() if suffix not in grouping.BIAS}
            if foreign := ours.keys() - grouping.LOHA - grouping.SHARED:
                raise FileError(f"module '{show(name)}': holds LoHa factors and also '{show(', '.join(sorted(foreign)))}', "
                                "so it is unclear what it is; save it as one kind.")
            modules[name] = loha_module(name, {suffix: tensors[key] for suffix, key in ours.items()})
            numbers.update(ours.values())
            if beside := {suffix: tensors[key] for suffix, key in suffixes.items() if suffix in grouping.BIAS}:
                others[name] = beside

    if found := non_finite(runs, numbers):
        raise FileError(f"tensor '{show(found)}' holds NaN or infinity: the training went wrong or the file is "
                        "damaged; choose an earlier epoch, or download it again.")
    guessed, note = peft.alphas(path, modules.values())
    modules |= {name: replace(modules[name], alpha=alpha) for name, alpha in guessed.items()}
    notes = _notes(modules, others) + ((note,) if note else ())
    return Loha(modules, others, refused, header.metadata, notes=notes)


def _notes(modules: dict[str, LohaModule], others: dict[str, dict[str, Tensor]]) -> tuple[str, ...]:
    zero = [name for name, module in modules.items() if module.alpha == 0]
    negative = [name for name, module in modules.items() if module.alpha is not None and module.alpha < 0]
    replaced = [name for name, tensors in others.items() if "set_weight" in tensors]
    unknown = [name for name, tensors in others.items() if grouping.KNOWN.isdisjoint(tensors)]
    facts = (
        (zero, "has alpha 0 and changes nothing", "have alpha 0 and change nothing"),
        (negative, "has a negative alpha and works the other way round",
         "have a negative alpha and work the other way round"),
        (replaced, "replaces a weight outright (set_weight), whatever the strength",
         "replace weights outright (set_weight), whatever the strength"),
        (unknown, "is of no known kind", "are of no known kind"),
    )
    return tuple(
        f"{len(names)} {f'module {one}' if len(names) == 1 else f'modules {many}'} (first: '{show(names[0])}')."
        for names, one, many in facts if names
    )


def _shown(path: str | os.PathLike[str]) -> str:
    return show(os.path.basename(os.fspath(path)) or os.fspath(path))
