"""A file for kohya's scripts, by whichever program it was written, as the scripts' keys and a dataset's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....text import show
from ...errors import SettingsError
from .findings import Findings
from .front_ends import easy_scripts, gui, lora_scripts
from .keys import KEYS, Part
from .strangers import named_by_keys
from .toml import flatten, is_path, parse

_SHOWN = 8


@dataclass(frozen=True)
class Configuration:
    """What a file says, before anything of it is judged.

    Args:
        origin: how a message calls it.
        values: the keys of a training.
        general, datasets: the tables of a dataset; none where the file holds a training alone.
        found: what is to be said so far.
    """

    origin: str
    values: Mapping[str, Any]
    general: Mapping[str, Any]
    datasets: Any
    found: Findings

    @property
    def says_how_to_train(self) -> bool:
        return any(key in KEYS and KEYS[key].part is not Part.IGNORED for key in self.values)


def read_configuration(source: str) -> Configuration:
    """The configuration in a file or a pasted text.

    Raises:
        FileError: the file cannot be read.
        SettingsError: neither TOML nor JSON, or a file that is known to be something else.
    """
    tables, origin = parse(source)
    found = Findings()
    if gui.is_one(tables):
        tables = gui.flattened(tables, found)
    elif easy_scripts.is_one(tables):
        tables = easy_scripts.flattened(tables, found)
    datasets = tables.get("datasets", ())
    apart = {"datasets", "general"} if "datasets" in tables else set()
    values, clashes = flatten({name: table for name, table in tables.items() if name not in apart}, KEYS)
    found.refused += clashes
    if lora_scripts.is_one(values):
        values = lora_scripts.flattened(values, found)
    made = Configuration(origin, values, tables.get("general", {}) if apart else {}, datasets, found)
    if not (made.says_how_to_train or apart):
        raise SettingsError(_nothing(origin, tables, values, is_file=is_path(source)))
    return made


def _nothing(origin: str, tables: Mapping[str, Any], values: Mapping[str, Any], *, is_file: bool) -> str:
    """A sentence on a text without a key of kohya's. What a file holds is not told: it may be anybody's secret."""
    if stranger := named_by_keys(tables):
        return f"{origin} is {stranger}"
    names = [show(name) for name in (values or tables)]
    more = ", …" if len(names) > _SHOWN else ""
    if is_file and names:
        return f"{origin} is no configuration of kohya's scripts: none of its {len(names)} key(s) says how to train"
    keys = f"holds {', '.join(names[:_SHOWN])}{more}" if names else "is empty"
    return f"{origin} {keys}: no key that says what to train or how, such as network_dim or learning_rate"
