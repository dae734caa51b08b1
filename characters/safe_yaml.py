"""YAML behind limits: plain text, numbers, lists and mappings, each with the line it stands on.

A cast file comes from a person's own disk or from a stranger, so nothing is constructed from it: the
loader stops at YAML's node tree, and what a cast needs is taken out of that, with a line for each error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import yaml

from ..text import show
from .errors import CastError

MAX_BYTES = 256 * 1024
MAX_TEXT = 500
_MAX_DEPTH = 8
_T = TypeVar("_T")


@dataclass(frozen=True)
class Node:
    """A place in a document: its YAML node, and the file and key that errors name."""

    yaml_node: yaml.Node
    file: str
    key: str

    def fail(self, problem: str) -> NoReturn:
        """Raise CastError with file, line and key in front of `problem`."""
        line = self.yaml_node.start_mark.line + 1
        key = f"{show(self.key)}: " if self.key else ""
        raise CastError(f"{show(self.file)}, line {line}: {key}{problem}")

    def fields(self, known: Iterable[str] = (), required: Iterable[str] = ()) -> dict[str, Node]:
        """The entries of a mapping; with `known`, any other key is an error."""
        if not isinstance(self.yaml_node, yaml.MappingNode):
            self.fail("must be a mapping of keys to values")
        known, entries = tuple(known), {}
        for key_node, value in self.yaml_node.value:
            name = Node(key_node, self.file, self.key).text()
            entry = Node(value, self.file, f"{self.key}.{name}" if self.key else name)
            at_key = Node(key_node, self.file, entry.key)
            if name in entries:
                at_key.fail("stands here twice; keep one")
            if known and name not in known:
                at_key.fail(f"is not a key that belongs here; known are {', '.join(known)}")
            entries[name] = entry
        for name in required:
            if name not in entries:
                self.fail(f"the key '{name}' is missing")
        return entries

    def items(self) -> list[Node]:
        """The entries of a list."""
        if not isinstance(self.yaml_node, yaml.SequenceNode):
            self.fail("must be a list, such as [one, two]")
        return [Node(node, self.file, f"{self.key}[{i}]") for i, node in enumerate(self.yaml_node.value)]

    def text(self) -> str:
        """A string of 1 to 500 printable characters."""
        node = self.yaml_node
        if not isinstance(node, yaml.ScalarNode):
            self.fail("must be text")
        if node.tag != "tag:yaml.org,2002:str":
            self.fail(f'must be text; put it in quotes: "{show(node.value)}"')
        if not node.value.strip():
            self.fail("is empty")
        if len(node.value) > MAX_TEXT or not node.value.isprintable():
            self.fail(f"must be one line of at most {MAX_TEXT} printable characters")
        return node.value.strip()

    def number(self) -> int:
        """A whole number from 0 up, written in plain digits."""
        node = self.yaml_node
        is_int = isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:int"
        if not is_int or not (node.value.isascii() and node.value.isdigit()) or len(node.value) > 9:
            self.fail("must be a whole number of at most 9 digits")
        return int(node.value)

    def each(self, read: Callable[[Node], _T]) -> tuple[_T, ...]:
        """The entries of a list, each through `read`; an entry that stands there twice is an error."""
        values: list[_T] = []
        for item in self.items():
            value = read(item)
            if value in values:
                item.fail(f"'{show(value)}' stands in this list twice; keep one")
            values.append(value)
        return tuple(values)


def load(data: bytes, file: str) -> Node:
    """Return the root of a document. Raises CastError on broken, oversized or aliased YAML."""
    if len(data) > MAX_BYTES:
        raise CastError(f"{show(file)}, line 1: the file is over {MAX_BYTES // 1024} KB; split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CastError(f"{show(file)}, line {line}: not UTF-8; save the file as UTF-8") from None
    try:
        root = yaml.compose(text, yaml.CSafeLoader) if _is_plain(text) else _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        # YAML splits some sentences: "expected a single document", "but found another document".
        problem = error.problem if not error.problem.startswith("but ") else f"{error.context}, {error.problem}"
        raise CastError(f"{show(file)}, line {line}: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise CastError(f"{show(file)}, line {line}: holds a character that YAML does not allow") from None
    if root is None:
        raise CastError(f"{show(file)}, line 1: the file is empty")
    return Node(root, file, "")


def _is_plain(text: str) -> bool:
    """Whether the fast C parser, where PyYAML has it, finds nothing to refuse; `_Loader` has the words for what is."""
    if not yaml.__with_libyaml__:
        return False
    depth = 0
    try:
        for event in yaml.parse(text, yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth >= _MAX_DEPTH or getattr(event, "anchor", None) is not None:
                return False
    except yaml.YAMLError:
        return False
    return True


class _Loader(yaml.SafeLoader):
    """Stops at the first anchor, alias or deep nest: the ways in which a small file grows large."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self._refuse(event, f"anchors and aliases are not allowed here ('{show(event.anchor)}')")
        if self.depth >= _MAX_DEPTH:
            self._refuse(event, f"nested deeper than {_MAX_DEPTH} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    @staticmethod
    def _refuse(event: yaml.Event, problem: str) -> NoReturn:
        raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
