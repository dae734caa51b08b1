"""The casts there are: those that come with the pack, and a person's own files beside them.

`<user directory>/shinymas/NAME.yaml` is a cast of its own, called NAME. One that is called as one of the pack's
is laid over it: a character of the same name takes the place of the one there, others are added at the end;
a model version likewise. What the first cast withholds is withheld in every cast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from ..text import show
from .catalogue import EMBEDDED, Cast, Character, name_keys, read
from .errors import CastError

DEFAULT_CAST = "shinymas"
_SHIPPED = {DEFAULT_CAST: EMBEDDED, "cinderella-girls": Path(__file__).with_name("cinderella-girls.yaml")}
_FOLDER = "shinymas"
_MAX_FILES = 200


@dataclass(frozen=True)
class Found:
    """A character by name, with the cast that she is from."""

    cast: Cast
    character: Character
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Casts:
    """All casts by name, the pack's first; `problems` holds a sentence for each unusable file."""

    by_name: Mapping[str, Cast]
    problems: tuple[str, ...] = ()

    def get(self, name: str) -> Cast:
        """The cast called `name`. Raises CastError, with the problems found, where there is none."""
        if name not in self.by_name:
            known = ", ".join(show(known) for known in self.by_name)
            broken = "".join(f"; {problem}" for problem in self.problems)
            raise CastError(f"there is no cast '{show(name)}'; there are {known}{broken}")
        return self.by_name[name]

    def find(self, name: str, text: str) -> Found:
        """Who is called `text`, in the cast called `name` or else in the first that has her.

        `notes` say so, and who else it may be. Raises CastError where there is no such cast, or nobody in any.
        """
        chosen = self.get(name)
        for cast in (chosen, *(other for other in self.by_name.values() if other is not chosen)):
            called = cast.called(text)
            if not called:
                continue
            notes = []
            if len(called) > 1:
                names = ", ".join(show(one.name) for one in called)
                notes.append(f"character: '{show(text)}' is {names}; the first of them stands in the prompt")
            if cast is not chosen:
                notes.append(f"cast: {show(called[0].name)} is from the cast '{show(cast.name)}', which is used")
            return Found(cast, called[0], tuple(notes))
        return Found(chosen, chosen.find(text))

    def versions(self) -> tuple[str, ...]:
        """The model versions of all casts, the embedded one's first, each once."""
        return tuple(dict.fromkeys(version for cast in self.by_name.values() for version in cast.models))

    def character_names(self) -> tuple[str, ...]:
        """The names of everyone, cast by cast, each once."""
        return tuple(dict.fromkeys(c.name for cast in self.by_name.values() for c in cast.characters))


def load_casts(user_directory: Path) -> Casts:
    """All casts, read anew only where a file changed. A broken file is reported, never raised."""
    casts = {name: _read(path, name, *_stamp(path)) for name, path in _SHIPPED.items()}
    withheld = casts[DEFAULT_CAST].withheld
    casts = {name: replace(cast, withheld=withheld) for name, cast in casts.items()}
    problems, taken = [], {}
    for path in _files(user_directory):
        try:
            _check(path)
            if path.stem in taken:
                raise CastError(f"{show(path.name)}: {show(taken[path.stem])} is the cast '{show(path.stem)}' already; "
                                "rename one")
            own = _read(path, path.stem, *_stamp(path))
            own = replace(own, withheld=tuple(dict.fromkeys((*withheld, *own.withheld))))
            casts[path.stem] = _over(casts[path.stem], own) if path.stem in _SHIPPED else own
            taken[path.stem] = path.name
        except OSError as error:
            problems.append(f"cast file {show(path.name)} left out: {error.strerror}")
        except CastError as error:
            problems.append(f"cast file left out: {error}")
    return Casts(MappingProxyType(casts), tuple(problems))


def cast_stamps(user_directory: Path) -> tuple[tuple[str | int, ...], ...]:
    """The path of every cast file, with what changes when the cast may have."""
    stamps = []
    for path in (*_SHIPPED.values(), *_files(user_directory)):
        try:
            stamps.append((str(path), *_stamp(path)))
        except OSError:
            stamps.append((str(path),))
    return tuple(stamps)


def _files(user_directory: Path) -> list[Path]:
    found = (user_directory / _FOLDER).glob("*.y*ml")
    return sorted(path for path in found if path.suffix in (".yaml", ".yml"))[:_MAX_FILES]


def _check(path: Path) -> None:
    folder = path.parent.resolve()
    if path.resolve().parent != folder:
        raise CastError(f"{show(path.name)}: points out of {_FOLDER}/; put the file itself there")
    if not path.is_file():  # a FIFO would be waited on for ever
        raise CastError(f"{show(path.name)}: is not a file")
    if not path.stem.isprintable():
        raise CastError(f"{show(path.name)}: give the file a name of printable characters")


def _stamp(path: Path) -> tuple[int, int, int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_ctime_ns


@lru_cache(maxsize=_MAX_FILES + len(_SHIPPED))
def _read(path: Path, name: str, *stamp: int) -> Cast:
    return read(path, name)


def _over(shipped: Cast, own: Cast) -> Cast:
    replaced = {character.name: character for character in own.characters}
    kept = tuple(replaced.pop(c.name, c) for c in shipped.characters)
    merged = (*kept, *replaced.values())
    owners: dict[str, str] = {}
    for character in merged:
        for key in sorted(name_keys(character)):
            if owners.setdefault(key, character.name) != character.name:
                raise CastError(
                    f"{own.name}.yaml: '{show(key)}' would find both {owners[key]} and "
                    f"{show(character.name)}; rename one"
                )
    models = MappingProxyType({**shipped.models, **own.models})
    return replace(own, characters=merged, models=models)
