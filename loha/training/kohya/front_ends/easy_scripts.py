"""LoRA Easy Training Scripts: one TOML with `[general_args.args]`, `[bucket_args.dataset_args]`, `[[subsets]]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..findings import Findings
from .texts import arguments

_TABLES = ("args", "dataset_args")
_ARGUMENTS = ("network_args", "optimizer_args", "lr_scheduler_args")


def is_one(tables: Mapping[str, Any]) -> bool:
    return any(isinstance(section, Mapping) and any(isinstance(section.get(name), Mapping) for name in _TABLES)
               for section in tables.values())


def flattened(tables: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """Tables as kohya has them: the training keys, and `general` and `datasets` where there are folders."""
    found.note("read as a file of LoRA Easy Training Scripts")
    values: dict[str, Any] = {}
    general: dict[str, Any] = {}
    for name, section in tables.items():
        if not isinstance(section, Mapping):
            if name != "subsets":
                values[name] = section
            continue
        for key, item in section.items():
            if key in _TABLES and isinstance(item, Mapping):
                (general if key == "dataset_args" else values).update(item)
            else:
                values[key] = item
    for key in _ARGUMENTS:
        if isinstance(values.get(key), Mapping):
            values[key] = arguments(values[key])
    # It trains kohya's own LoRA unless one of LyCORIS's algorithms is chosen.
    is_lycoris = "algo=" in str(values.get("network_args", ""))
    values.setdefault("network_module", "lycoris.kohya" if is_lycoris else "networks.lora")
    if share := values.pop("warmup_ratio", 0):
        values["lr_warmup_steps"] = share
    if not tables.get("subsets"):
        return {**general, **values}
    return {**values, "general": general, "datasets": [{"subsets": tables["subsets"]}]}
