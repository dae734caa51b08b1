"""Which module of a file goes on which weight of a model: all of a binding that no strength changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from ..text import show
from . import base_models, naming
from .base_models import Base
from .errors import BindError
from .fitting import misfit, stays_finite
from .foreign_kinds import DAMAGED
from .module import BIAS_NAMES, Loha, LohaModule
from .naming import Address
from .targets import Place, Skip, Target

# Above every strength times block weight that a person is likely to give.
_STRONG = 128.0


class Fit(NamedTuple):
    """A module and the weight that has its name.

    Args:
        misfit: why it cannot go there at any strength.
        finite_up_to: bounds alone show that no number overflows up to this strength; 0 where they do not.
    """

    module: LohaModule | Mapping[str, Tensor]
    target: Target
    misfit: Skip | None
    finite_up_to: float


@dataclass(frozen=True, eq=False)
class Fits:
    """Every module of a file beside a model's weights, in the file's order. Without the file, which may remember it.

    Args:
        modules: (name, where it fits or why nowhere); None for a name that means nothing in this model.
        made_for, model: base models of the file and of the model.
    """

    modules: tuple[tuple[str, Fit | Skip | None], ...]
    made_for: Base
    model: Base


def find_fits(loha: Loha, targets: Iterable[Target], *, names: Callable[[], Mapping[str, Place]] = dict,
              absent: Mapping[str, Skip] | None = None, model: str = "") -> Fits:
    """Match every module of `loha` to a weight, or a part of one, by name and then by shape; see `binding.bind`.

    Raises:
        BindError: two modules of the file name one weight.
    """
    by_weight = {target.weight: target for target in targets}
    places = _Places(by_weight, names)
    made_for, model_base = base_models.of_file(loha), base_models.of_model(by_weight.values(), places.index, model)
    found: list[tuple[str, Fit | Skip | None]] = [
        (name, Skip(reason, remedy=DAMAGED)) for name, reason in loha.refused.items()]
    if made_for.excludes(model_base):
        skip = Skip(f"made for {made_for.name}, and the model is {model_base.name}")
        found += [(name, skip) for name in (*loha.modules, *loha.others)]
        return Fits(tuple(found), made_for, model_base)

    owners: dict[object, str] = {}
    for name, module in [*loha.modules.items(), *loha.others.items()]:
        ours = isinstance(module, LohaModule)
        where = naming.address(name)
        place = places.of(name, where)
        is_bias = not ours and module.keys() <= BIAS_NAMES
        if is_bias:
            # ComfyUI's trainer writes a layer's bias beside its LoHa, under the same name.
            place = place and _bias_place(place)
            name = f"{name} (bias)"
        if place is None or place.weight not in by_weight:  # ComfyUI's map names layers that some models leave out
            found.append((name, (absent or {}).get(where[0]) or places.nearly(name)
                          or _elsewhere(where, made_for.name, model_base.name)))
            continue
        target = by_weight[place.weight].part(place)
        if isinstance(target, Skip):
            found.append((name, target))
            continue
        if target.key in owners:
            raise BindError(f"'{show(owners[target.key])}' and '{show(name)}' both name the weight {target.where}; a "
                            "file must hold one of them. Remove one, or save the file anew with the tool that made it.")
        owners[target.key] = name
        fault = misfit(module, target, target.shape if is_bias else _bias_shape(place, by_weight))
        sure = fault is None and stays_finite(module, target, _STRONG)
        found.append((name, Fit(module, target, fault, _STRONG if sure else 0.0)))
    return Fits(tuple(found), made_for, model_base)


class _Places:
    """Where a module's name leads: by the names that every tool uses, then by those of the architecture."""

    def __init__(self, weights: Iterable[str], names: Callable[[], Mapping[str, Place]]) -> None:
        self.index = naming.index(weights)
        self._further = names

    def of(self, name: str, where: Address) -> Place | None:
        if where in self.index:
            return Place(self.index[where])
        return self._names.get(name) or self._addresses.get(where)

    def nearly(self, name: str) -> Skip | None:
        """Reason for a name whose capital letters alone are wrong."""
        small = name.lower()
        known = small != name and naming.address(small) in self.index
        return Skip("no weight of this model has that name; in small letters one has") if known else None

    @cached_property
    def _names(self) -> Mapping[str, Place]:
        return self._further()

    @cached_property
    def _addresses(self) -> dict[Address, Place]:
        """So that a prefix of another tool makes no difference; what would be two things means none."""
        found: dict[Address, set[Place]] = {}
        for name, place in self._names.items():
            found.setdefault(naming.address(name), set()).add(place)
        return {where: places.pop() for where, places in found.items() if len(places) == 1}


def _bias_place(place: Place) -> Place:
    along_rows = place.span is not None and place.span[0] == 0
    return Place(place.weight.removesuffix("weight") + "bias", place.span if along_rows else None, place.reorder)


def _bias_shape(place: Place, by_weight: Mapping[str, Target]) -> tuple[int, ...] | None:
    bias = _bias_place(place)
    part = by_weight[bias.weight].part(bias) if bias.weight in by_weight else None
    return part.shape if isinstance(part, Target) else None


def _elsewhere(where: Address, file_base: str, model_base: str) -> Skip | None:
    """Reason for a name that is sound but belongs to another model; None for one that nobody knows."""
    part, _ = where
    if part in ("te2", "te3"):
        return Skip(f"for text encoder {part[2]}, which this model does not have")
    if file_base and file_base != model_base:
        return Skip(f"not in this model; the file looks made for {file_base}")
    return None
