"""From a checked container to a `Loha`: each module sorted, validated, counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from ...text import show
from ..errors import FileError
from ..module import BIAS_NAMES, Loha, LohaModule
from . import container, peft, tensor_names
from .finite import non_finite
from .validate import loha_module, single_number
from .years import as_meant


def require_adapter(groups: tensor_names.ByModule) -> None:
    """Tell from names alone, before the data is read, that a file is for something else altogether.

    Raises:
        FileError: no tensor belongs to any kind of adapter.
    """
    if not groups:
        raise FileError("holds no tensors; download it again.")
    if not any(suffix in tensor_names.KNOWN for suffixes in groups.values() for suffix in suffixes):
        keys = [key for suffixes in groups.values() for key in suffixes.values()]
        kind = " It looks like a checkpoint." if any(key.startswith("model.diffusion_model.") for key in keys) else ""
        near = next(filter(None, (tensor_names.nearly(suffix) for suffixes in groups.values() for suffix in suffixes)),
                    "")
        raise FileError(f"holds no LoHa or LoRA: none of its {len(keys)} tensors belongs to one "
                        f"(first: '{show(keys[0])}').{kind} {near and f'{near}. '}Choose a LoHa file.")


def assemble(
    path: str | os.PathLike[str], header: container.Header, groups: tensor_names.ByModule, data: Tensor
) -> Loha:
    """Validate every module of the data section (uint8, 1-D) and return the Loha, still without a source.

    Raises:
        FileError: a LoHa module is malformed or holds NaN or infinity.
    """
    runs = container.runs(header.entries, data)
    tensors = container.tensors(runs)
    modules: dict[str, LohaModule] = {}
    others: dict[str, dict[str, Tensor]] = {}
    refused: dict[str, str] = {}
    numbers: set[str] = set()
    scalars: dict[str, float] = {}
    embeddings = [name for name in groups if name.startswith(tensor_names.EMBEDDING)]

    for name, suffixes in groups.items():
        if name in embeddings:
            continue
        if flaw := tensor_names.flaw(name):
            refused[name] = flaw
        elif tensor_names.LOHA.isdisjoint(suffixes):
            if tensor_names.SHARED.issuperset(suffixes):
                refused[name] = f"it holds {' and '.join(suffixes)} but no factors"
            else:
                others[name] = {suffix: tensors[key] for suffix, key in suffixes.items()}
        else:
            ours = {suffix: key for suffix, key in suffixes.items() if suffix not in BIAS_NAMES}
            if foreign := ours.keys() - tensor_names.LOHA - tensor_names.SHARED:
                near = "; ".join(filter(None, map(tensor_names.nearly, sorted(foreign))))
                raise FileError(f"module '{show(name)}': holds LoHa factors and also "
                                f"'{show(', '.join(sorted(foreign)))}', so it is unclear what it is; "
                                f"{near or 'save it as one kind'}.")
            modules[name] = loha_module(name, {suffix: tensors[key] for suffix, key in ours.items()})
            if "scalar" in ours:
                scalars[name] = single_number(name, "scalar", tensors[ours["scalar"]])
            numbers.update(ours.values())
            if beside := {suffix: tensors[key] for suffix, key in suffixes.items() if suffix in BIAS_NAMES}:
                others[name] = beside

    foreign = {groups[name][suffix]: (name, suffix) for name, kept in others.items() for suffix in kept}
    for found in non_finite(runs, numbers | foreign.keys()):
        if found in numbers:
            raise FileError(f"tensor '{show(found)}' holds NaN or infinity: the training went wrong or the file is "
                            "damaged; choose an earlier epoch, or download it again.")
        name, suffix = foreign[found]
        others.pop(name, None)
        refused[f"{name} (bias)" if name in modules else name] = f"its {suffix} holds NaN or infinity"
    looked_up, doubt = peft.alphas(path, modules.values())
    modules |= {name: replace(modules[name], alpha=alpha) for name, alpha in looked_up.items()}
    modules, rules = as_meant(modules, scalars, header.metadata)
    notes = (*_notes(modules, others, embeddings), *rules)
    doubts = filter(None, (doubt, peft.doubt_of_others(others)))
    return Loha(modules, others, refused, header.metadata, notes=notes, doubts=tuple(doubts))


def _notes(modules: dict[str, LohaModule], others: dict[str, dict[str, Tensor]], embeddings: list[str]
           ) -> Iterator[str]:
    zero = [name for name, module in modules.items() if module.alpha == 0]
    negative = [name for name, module in modules.items() if module.alpha is not None and module.alpha < 0]
    replaced = [name for name, tensors in others.items() if "set_weight" in tensors]
    unknown = [name for name, tensors in others.items() if tensor_names.KNOWN.isdisjoint(tensors)]
    facts = (
        (zero, "has alpha 0 and changes nothing", "have alpha 0 and change nothing"),
        (negative, "has a negative alpha and works the other way round",
         "have a negative alpha and work the other way round"),
        (replaced, "replaces a weight outright (set_weight), whatever the strength",
         "replace weights outright (set_weight), whatever the strength"),
        (unknown, "is of no known kind", "are of no known kind"),
    )
    for names, one, many in facts:
        if names:
            said = f"module {one}" if len(names) == 1 else f"modules {many}"
            yield f"{len(names)} {said} (first: '{show(names[0])}')."
    if near := next(filter(None, (tensor_names.nearly(suffix) for name in unknown for suffix in others[name])), ""):
        yield f"Of those of no known kind: {near}."
    if embeddings:
        named = dict.fromkeys(show(name.removeprefix(tensor_names.EMBEDDING).split(".")[0]) for name in embeddings)
        yield ("Embeddings beside the modules, which a LoHa loader does not use and Save LoHa does not write: "
               f"{', '.join(list(named)[:8])}{' …' if len(named) > 8 else ''}. Prompts that name them need them in "
               "models/embeddings.")
