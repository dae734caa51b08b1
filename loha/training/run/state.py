"""Where a run stands, as tensors and JSON: everything that going on needs, nothing that runs code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import FileError
from .fingerprint import COLUMNS, Fingerprint
from .validation import Validation

_LAYOUT = 2
_LAYOUT_0_1_0 = 1


@dataclass(frozen=True, eq=False)
class RunState:
    """A run after `step` optimiser steps.

    There is no random state in it: every draw of a run follows from its seed and the showing or step
    that it is for.

    Args:
        session: names the run, the same in all its files.
        fingerprint: of what must be the same for the run to go on as if never interrupted.
        step: optimiser steps done.
        parameters, optimiser, schedule, scaler: `state_dict`s.
        losses: of each step so far.
        started: when the run began, seconds since 1970.
        validations: of the run so far.
        characters: `CharacterLosses.state_dict`.
        ema: running means of the parameters, where the run has them.
        old_digest: of a state of version 0.1.0, which has no fingerprint but `digest.run_digest`.
    """

    session: str
    fingerprint: Fingerprint | None
    step: int
    parameters: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    schedule: Mapping[str, Any]
    scaler: Mapping[str, Any]
    losses: tuple[float, ...]
    started: float
    validations: tuple[Validation, ...] = ()
    characters: Mapping[str, Sequence[float]] = field(default_factory=dict)
    ema: Mapping[str, Tensor] = field(default_factory=dict)
    old_digest: str = ""


def pack(state: RunState) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, on the CPU, and the metadata of a safetensors file. `state` has a fingerprint."""
    tensors = {f"parameter.{name}": tensor for name, tensor in state.parameters.items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in state.ema.items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state.optimiser["state"].items():
        plain[str(index)] = {}
        for key, value in _leaves(values):
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{key}"] = value
            else:
                plain[str(index)][key] = value
    groups = []
    for index, group in enumerate(state.optimiser["param_groups"]):
        groups.append({key: value for key, value in group.items() if not isinstance(value, Tensor)})
        tensors |= {f"group.{index}.{key}": value for key, value in group.items() if isinstance(value, Tensor)}
    tensors["losses"] = torch.tensor(state.losses, dtype=torch.float64)
    tensors["pictures"] = torch.tensor(state.fingerprint.pictures)
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    document = {
        "layout": _LAYOUT, "session": state.session, "step": state.step, "started": state.started,
        "facts": state.fingerprint.facts, "weights": state.fingerprint.weights,
        "optimiser": plain, "groups": groups,
        "schedule": state.schedule, "scaler": state.scaler,
        "validations": [asdict(one) for one in state.validations], "characters": dict(state.characters),
    }
    return tensors, {"shinymas_state": json.dumps(document)}


def unpack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> RunState:
    """The way back from `pack`. Raises `FileError` for anything that `pack` did not make."""
    try:
        document = json.loads(metadata["shinymas_state"])
        is_old = document["layout"] == _LAYOUT_0_1_0
        if document["layout"] != _LAYOUT and not is_old:
            raise FileError("the training state was written by another version of this pack")
        flat = {int(index): dict(values) for index, values in document["optimiser"].items()}
        parameters, ema = {}, {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "parameter":
                parameters[rest] = tensor
            elif kind == "ema":
                ema[rest] = tensor
            elif kind == "group":
                index, _, key = rest.partition(".")
                document["groups"][int(index)][key] = tensor
            elif kind == "optimiser":
                index, _, key = rest.partition(".")
                flat[int(index)][key] = tensor
        optimiser = {index: _nested(values) for index, values in flat.items()}
        return RunState(
            document["session"], None if is_old else _fingerprint(document, tensors["pictures"]),
            int(document["step"]), parameters,
            {"state": optimiser, "param_groups": document["groups"]}, document["schedule"], document["scaler"],
            tuple(tensors["losses"].tolist()), float(document["started"]),
            # Not in states of 0.1.0.
            tuple(_validation(one) for one in document.get("validations", ())),
            {name: (float(total), float(showings))
             for name, (total, showings) in document.get("characters", {}).items()}, ema,
            document["digest"] if is_old else "",
        )
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FileError("the file is not a training state") from error


def _validation(found: Mapping[str, Any]) -> Validation:
    by_character = {str(name): float(loss) for name, loss in found["by_character"].items()}
    return Validation(int(found["step"]), float(found["loss"]), tuple(map(float, found["by_timestep"])), by_character)


def _fingerprint(document: Mapping[str, Any], pictures: Tensor) -> Fingerprint:
    facts, weights = dict(document["facts"]), dict(document["weights"])
    if pictures.dtype is not torch.uint8 or pictures.dim() != 2 or pictures.shape[1] != COLUMNS:
        raise ValueError("pictures")
    return Fingerprint(facts, weights, np.asarray(pictures))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything below. bitsandbytes wraps its tensors in a mapping of their own."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The way back from `_leaves`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *outer, key = path.split(".")
        place = tree
        for name in outer:
            place = place.setdefault(name, {})
        place[key] = value
    return tree
