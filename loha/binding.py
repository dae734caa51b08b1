"""Which module of a LoHa goes on which weight of a model, and why the others do not.

Nothing is multiplied before its shape has been found right: two rank-1 factors of 200 000 numbers
are a 3 MB file and a 160 GB product. `applied + skipped + unknown` is always the number of modules
in the file, of every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from ..text import show
from .base_models import Base
from .errors import BindError
from .fitting import overflow
from .matching import Fits, find_fits
from .module import Loha, LohaModule
from .targets import Bound, Place, Skip, Target

__all__ = ["Binding", "Bound", "Place", "Skip", "Target", "at_strength", "bind"]

_NO_NAME = "no weight of this model has that name"


@dataclass(frozen=True, eq=False)
class Binding:
    """The outcome for one file and one model.

    Args:
        modules: LoHa modules that fit, by their name in the file.
        others: modules of other kinds that have a target.
        skipped: modules known to belong somewhere that are not applied.
        unknown: names that mean nothing in this model.
        wanted: how many have a place in this model and are not switched off.
        made_for, model: base models of the file and of the model. Where they exclude each other nothing is applied.
    """

    loha: Loha
    modules: Mapping[str, Bound]
    others: Mapping[str, Bound]
    skipped: Mapping[str, Skip]
    unknown: tuple[str, ...]
    wanted: int
    made_for: Base
    model: Base

    @property
    def file_base(self) -> str:
        """The base model that the file looks made for, "" when nothing tells."""
        return self.made_for.name

    @property
    def model_base(self) -> str:
        """The base model that the model looks like, "" when nothing tells."""
        return self.model.name

    @property
    def applied(self) -> int:
        return len(self.modules) + len(self.others)

    @property
    def faults(self) -> dict[str, str]:
        """What `strict` refuses: name → reason."""
        found = {name: str(skip) for name, skip in self.skipped.items() if not skip.asked}
        return found | dict.fromkeys(self.unknown, _NO_NAME)

    def demand(self, *, strict: bool) -> None:
        """Refuse what must not pass in silence: nothing fits at all; with `strict`, anything left off or guessed.

        Where nothing is wanted, a few names that mean nothing here are no reason to refuse.

        Raises:
            BindError: says how many, why, and what the file looks made for.
        """
        faults = self.faults
        if faults and not self.applied and (self.wanted or len(faults) * 2 >= len(self.loha)):
            raise BindError(_nothing_fits(self))
        if strict and self.loha.doubts:
            raise BindError(f"strict: {' '.join(self.loha.doubts)} Turn `strict` off to apply it so.")
        if faults and strict:
            lines = "\n".join(f"- {show(name)}: {reason}" for name, reason in list(faults.items())[:10])
            more = f"\n… and {len(faults) - 10} more" if len(faults) > 10 else ""
            closing = ["Turn `strict` off to apply the others."] if self.applied else list(_remedies(self))
            raise BindError(f"strict: {len(faults)} of the file's {len(self.loha)} modules would not be applied:\n"
                            f"{lines}{more}\n{' '.join(closing)}".rstrip())

    def without(self, failed: Mapping[str, Skip]) -> Binding:
        """The same with modules of `others` moved to `skipped`."""
        kept = {name: bound for name, bound in self.others.items() if name not in failed}
        return replace(self, others=kept, skipped={**self.skipped, **failed})


def bind(loha: Loha, targets: Iterable[Target], strength: Callable[[Target], float] = lambda target: 1.0, *,
         block_weight: Callable[[Target], float] = lambda target: 1.0,
         names: Callable[[], Mapping[str, Place]] = dict, absent: Mapping[str, Skip] | None = None,
         model: str = "") -> Binding:
    """Match every module of `loha` to a weight, or a part of one, by name and then by shape.

    Args:
        targets: the model's weights, all of them.
        strength, block_weight: a weight gets their product; a module stays off where that is 0, as asked.
        names: gives further module names, for architectures whose names `naming` does not know; asked if need be.
        absent: part of an address (`te1`) → why its modules stay off where the model's side is not there (no CLIP).
        model: the model's base model, where its class tells.

    Raises:
        BindError: two modules of the file name one weight.
    """
    return at_strength(loha, find_fits(loha, targets, names=names, absent=absent, model=model), strength, block_weight)


def at_strength(loha: Loha, fits: Fits, strength: Callable[[Target], float] = lambda target: 1.0,
                block_weight: Callable[[Target], float] = lambda target: 1.0) -> Binding:
    """What `bind` makes of a file and its fits at a strength: all that depends on one."""
    modules: dict[str, Bound] = {}
    others: dict[str, Bound] = {}
    skipped: dict[str, Skip] = {}
    unknown = []
    in_use = 0
    for name, fit in fits.modules:
        if fit is None:
            unknown.append(name)
            continue
        if isinstance(fit, Skip):
            skipped[name] = fit
            continue
        module, target, fault, finite_up_to = fit
        whole, block = strength(target), block_weight(target)
        wanted = whole * block
        if wanted == 0:
            skipped[name] = _off(target, whole, block)
            continue
        in_use += 1
        if fault:
            skipped[name] = fault
        elif not abs(wanted) <= finite_up_to and (skip := overflow(module, target, wanted, _said(whole, block))):
            skipped[name] = skip
        else:
            (modules if isinstance(module, LohaModule) else others)[name] = Bound(module, target, wanted)
    return Binding(loha, modules, others, skipped, tuple(unknown), in_use, fits.made_for, fits.model)


def _off(target: Target, strength: float, block_weight: float) -> Skip:
    """Why a weight gets nothing."""
    if strength == 0:
        return Skip(f"strength 0 for {'the U-Net' if target.is_unet else 'the text encoder'}", asked=True)
    if block_weight == 0:
        return Skip("block weight 0", target.block, asked=True)
    return Skip(f"{_said(strength, block_weight)} is 0", asked=True)


def _said(strength: float, block_weight: float) -> str:
    return f"strength {strength:g}" + ("" if block_weight == 1 else f" × block weight {block_weight:g}")


def _remedies(binding: Binding) -> dict[str, list[str]]:
    """What to do → the modules that it would help, "" for those that need another checkpoint or file."""
    found: dict[str, list[str]] = {}
    for name, skip in binding.skipped.items():
        if not skip.asked:
            found.setdefault(skip.remedy, []).append(name)
    if binding.unknown:
        found.setdefault("", []).extend(binding.unknown)
    return found


def _nothing_fits(binding: Binding) -> str:
    count, made_for, model = len(binding.loha), binding.made_for, binding.model
    if made_for.excludes(model):
        return (f"This LoHa was made for {made_for.name} ({made_for.why}), and the model is {model.name}: none of its "
                f"{count} modules is applied. Choose a checkpoint of the kind that the LoHa was trained on, or a LoHa "
                f"for {model.name}.")
    faults, remedies = binding.faults, _remedies(binding)
    on = "" if len(faults) == count else " that are not switched off"
    if "" not in remedies:
        parts = [f"The first{'' if len(remedies) == 1 else f' of {len(names)}'}, '{show(names[0])}': "
                 f"{faults[names[0]]}. {remedy}" for remedy, names in remedies.items()]
        return f"None of the file's {len(faults)} modules{on} can be applied. {' '.join(parts)}"
    bases = f" It looks made for {made_for.name}" if made_for.name else " What it was made for cannot be told"
    other = f"; the model looks like {model.name}." if model.name else "; nor can what the model is."
    name = remedies[""][0]
    advice = "Choose a checkpoint of the kind that the LoHa was trained on."
    if made_for.name and made_for.name == model.name:
        advice = "Another checkpoint of that kind will not help: get the file anew, or ask whoever made it."
    more = [remedy for remedy in remedies if remedy]
    return (f"None of the file's {len(faults)} modules{on} fits this model.{bases}{other} The first, '{show(name)}': "
            f"{faults[name]}. {' '.join([advice, *more])}")
