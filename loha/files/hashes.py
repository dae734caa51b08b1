"""The hashes that kohya's trainer writes and A1111's lists of models and LoRAs look for.

Defined by kohya-ss/sd-scripts (library/train_util.py): model_hash and calculate_sha256 of a model's file;
precalculate_safetensors_hashes of a trained one, both over the file as it would be with only its `ss_*` metadata, so
that later notes in the metadata do not change them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from .container import Entry, format_header

_LEGACY_START = 0x100000
_LEGACY_LENGTH = 0x10000


def kohya_hashes(entries: Iterable[Entry], metadata: Mapping[str, str], data: memoryview) -> dict[str, str]:
    """Return `sshs_model_hash` (sha256 of the data) and `sshs_legacy_hash` (8 hex digits) of a file."""
    header = format_header(entries, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    end = _LEGACY_START + _LEGACY_LENGTH
    start_in_data = max(0, _LEGACY_START - len(header))
    sample = header[_LEGACY_START:end] + bytes(data[start_in_data:max(0, end - len(header))])
    return {
        "sshs_model_hash": hashlib.sha256(data).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(sample).hexdigest()[:8],
    }


def file_hashes(path: Path) -> tuple[str, str]:
    """The web UI's old hash of a model's file (8 hex digits of its second MiB's first 64 KiB), and its sha256."""
    with path.open("rb") as file:
        file.seek(_LEGACY_START)
        legacy = hashlib.sha256(file.read(_LEGACY_LENGTH)).hexdigest()[:8]
        file.seek(0)
        whole = hashlib.sha256()
        while block := file.read(1 << 22):
            whole.update(block)
    return legacy, whole.hexdigest()
