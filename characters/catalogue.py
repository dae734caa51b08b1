"""A cast: the characters, what a model version calls them, and how one is found by name."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from ..text import show
from . import safe_yaml
from .errors import CastError, UnknownCharacter
from .safe_yaml import Node

EMBEDDED = Path(__file__).resolve().parent.parent / "character_tags.yaml"
_HEX = frozenset("0123456789abcdefABCDEF")
_CHARACTER_KEYS = ("name", "ja", "kana", "unit", "colour", "cards", "aliases", "tags", "identity")
_MODEL_KEYS = ("file", "kind", "trigger", "sha256", "url", "cards", "without", "reason", "note")


@dataclass(frozen=True)
class Character:
    """One character. `tags` are data in their source's order; `identity` is what she looks like."""

    name: str
    tags: tuple[str, ...]
    identity: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    ja: str = ""
    kana: str = ""
    unit: str = ""
    colour: str = ""
    cards: int | None = None

    @property
    def family(self) -> str:
        """The first word of the name, "" where it is a single word."""
        return self.name.rpartition(" ")[0].split(" ")[0]

    @property
    def given(self) -> str:
        return self.name[len(self.family) :].strip()


@dataclass(frozen=True)
class ModelVersion:
    """What one version of a model wants as a trigger, whom it never saw, and what is to be known of everyone else."""

    name: str
    trigger: str
    file: str = ""
    kind: str = ""
    url: str = ""
    cards: int | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Cast:
    """A named cast. `withheld` tags are data and never reach a prompt."""

    name: str
    characters: tuple[Character, ...]
    models: Mapping[str, ModelVersion] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()

    def find(self, text: str) -> Character:
        """The first of `called`. Raises UnknownCharacter, with the nearest names, where nobody is."""
        called = self.called(text)
        if not called:
            index = {key: character for character in self.characters for key in name_keys(character)}
            near = difflib.get_close_matches(fold(text), index, n=6, cutoff=0.6)
            names = list(dict.fromkeys(index[key].name for key in near))[:3]
            hint = f"did you mean {' or '.join(names)}?" if names else "see the list of the node"
            raise UnknownCharacter(f"'{show(text)}' is not in the cast '{show(self.name)}'; {hint}")
        return called[0]

    def called(self, text: str) -> tuple[Character, ...]:
        """Whom `text` may mean: by name in either order, alias, kanji or kana; else by a given name; else
        everyone of a unit. Case, width and the two kana are one."""
        key = fold(text)
        for keys in (name_keys, _given_keys, _unit_keys):
            for spelt in (str, _hiragana):
                found = tuple(one for one in self.characters if spelt(key) in map(spelt, keys(one)))
                if found:
                    return found
        return ()

    def members(self, version: str) -> tuple[Character, ...]:
        """Those whom `version` was trained on; everyone where the cast does not list that version.

        Raises CastError where that is nobody.
        """
        model = self.models.get(version)
        known = tuple(c for c in self.characters if model is None or c.name not in model.without)
        if not known:
            raise CastError(f"{show(version)} knows nobody of the cast '{show(self.name)}'; choose another version")
        return known

    def recognise(self, sha256: str) -> tuple[str, str] | None:
        """(version, checkpoint name) of a file with this hash, None where it is not a known one."""
        for version in self.models.values():
            for name, known in version.sha256.items():
                if known.lower() == sha256.lower():
                    return version.name, name
        return None


def fold(text: str) -> str:
    """A name with case, width, spaces, hyphens and macrons taken out: what names are compared by."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not "\u0300" <= c <= "\u036f")
    return "".join(c for c in unicodedata.normalize("NFC", bare).casefold() if c.isalnum())


def name_keys(character: Character) -> frozenset[str]:
    """Everything that finds a character, folded; two-word names in either order."""
    names = (character.name, *character.aliases, character.ja, character.kana)
    turned = (" ".join(reversed(name.split())) for name in names if len(name.split()) == 2)
    return frozenset(fold(name) for name in (*names, *turned)) - {""}


def _given_keys(character: Character) -> frozenset[str]:
    return frozenset(map(fold, (character.given, *character.kana.split()[1:]))) - {""}


def _unit_keys(character: Character) -> frozenset[str]:
    return frozenset((fold(character.unit),)) - {""}


def _hiragana(text: str) -> str:
    return "".join(chr(ord(c) - 0x60) if "\u30a1" <= c <= "\u30f6" else c for c in text)


def read(path: Path, name: str) -> Cast:
    """Read a cast file. Raises CastError naming file, line and key, or that it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(safe_yaml.MAX_BYTES + 1)
    except OSError as error:
        raise CastError(f"{show(path.name)}: cannot be read: {error.strerror}") from None
    return parse(data, path.name, name)


def parse(data: bytes, file: str, name: str) -> Cast:
    """The cast called `name` out of the bytes of a YAML file; `file` is how errors call it."""
    root = safe_yaml.load(data, file)
    entries = root.fields(("version", "models", "characters", "withheld"), ("version", "characters"))
    if entries["version"].number() != 1:
        entries["version"].fail("must be 1, the only format there is")
    characters = _characters(entries["characters"])
    names = frozenset(character.name for character in characters)
    models = entries["models"].fields() if "models" in entries else {}
    return Cast(
        name=name,
        characters=characters,
        models=MappingProxyType({key: _model(key, node, names) for key, node in models.items()}),
        withheld=entries["withheld"].each(_tag) if "withheld" in entries else (),
    )


def _characters(node: Node) -> tuple[Character, ...]:
    owners: dict[str, str] = {}
    characters = []
    for item in node.items():
        character = _character(item)
        for key in sorted(name_keys(character)):
            if key in owners:
                item.fail(f"'{show(key)}' would find both {owners[key]} and {character.name}; rename one")
            owners[key] = show(character.name)
        characters.append(character)
    if not characters:
        node.fail("lists nobody")
    return tuple(characters)


def _character(node: Node) -> Character:
    entries = node.fields(_CHARACTER_KEYS, ("name", "tags"))
    texts = {key: entries[key].text() for key in ("ja", "kana", "unit") if key in entries}
    tags = entries["tags"].each(_tag)
    identity = entries["identity"].each(_tag) if "identity" in entries else ()
    for tag, item in zip(identity, entries["identity"].items() if identity else (), strict=True):
        if tag not in tags:
            item.fail(f"'{show(tag)}' is not among the character's tags")
    name = _tag(entries["name"])
    if not fold(name):
        entries["name"].fail("holds no letter or digit")
    return Character(
        name=name, tags=tags, identity=identity, **texts,
        aliases=entries["aliases"].each(_tag) if "aliases" in entries else (),
        colour=_colour(entries["colour"]) if "colour" in entries else "",
        cards=entries["cards"].number() if "cards" in entries else None,
    )  # fmt: skip


def _model(name: str, node: Node, names: frozenset[str]) -> ModelVersion:
    entries = node.fields(_MODEL_KEYS, ("trigger",))
    texts = {key: entries[key].text() for key in ("file", "kind", "url", "reason", "note") if key in entries}
    hashes = entries["sha256"].fields() if "sha256" in entries else {}
    without = entries["without"].each(Node.text) if "without" in entries else ()
    for absent in without:
        if absent not in names:
            entries["without"].fail(f"'{show(absent)}' is not a character of this file")
    return ModelVersion(
        name=name, trigger=_trigger(entries["trigger"]), **texts, without=without,
        sha256=MappingProxyType({key: _sha256(item) for key, item in hashes.items()}),
        cards=entries["cards"].number() if "cards" in entries else None,
    )  # fmt: skip


def _tag(node: Node) -> str:
    text = node.text()
    if "," in text:
        node.fail("holds a comma, which would make two tags of it")
    return " ".join(text.split())


def _colour(node: Node) -> str:
    text = node.text()
    if len(text) != 6 or not _HEX.issuperset(text):
        node.fail('must be six hex digits in quotes, such as "FFBAD6"')
    return text


def _sha256(node: Node) -> str:
    text = node.text()
    if len(text) != 64 or not _HEX.issuperset(text):
        node.fail("must be a sha256 of 64 hex digits")
    return text.lower()


def _trigger(node: Node) -> str:
    text = _tag(node)
    bare = text.replace("{family}", "").replace("{given}", "").replace("{name}", "")
    if bare == text or "{" in bare or "}" in bare:
        node.fail("must name the character by {family}, {given} or {name}, and hold no other braces")
    return text
