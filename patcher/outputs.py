"""Who takes what a node gives out, in the graph that was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..text import show


def in_need(prompt: Mapping[str, Any] | None, node: str, slot: int) -> str:
    """Name of a node that runs and cannot do without this output, "" where there is none.

    Args:
        prompt: as ComfyUI was sent it; what leads to no picture or report does not run.
    """
    for other, needs in _takers(prompt or {}, node, slot):
        if needs and _runs(prompt, other):
            title = prompt[other].get("_meta", {}).get("title") or prompt[other]["class_type"]
            return show(str(title), 60)
    return ""


def _runs(prompt: Mapping[str, Any], node: str) -> bool:
    waiting, seen = [node], set()
    while waiting:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        if getattr(_class(prompt[at]), "OUTPUT_NODE", False):
            return True
        waiting += [other for other, _ in _takers(prompt, at)]
    return False


def _takers(prompt: Mapping[str, Any], node: str, slot: int | None = None) -> Iterator[tuple[str, bool]]:
    """Each node that takes the output (any, without a slot), and whether as an input that it requires."""
    for other, sent in prompt.items():
        for name, value in sent.get("inputs", {}).items():
            if isinstance(value, list) and len(value) == 2 and value[0] == node and slot in (None, value[1]):
                yield other, name in _class(sent).INPUT_TYPES().get("required", {})


def _class(sent: Mapping[str, Any]) -> Any:
    import nodes  # ComfyUI's

    return nodes.NODE_CLASS_MAPPINGS[sent["class_type"]]
