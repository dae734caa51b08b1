"""The syntax in a prompt: ComfyUI's weights, which are ours to read, and everybody else's, which is not.

`(a, b:1.2)` weighs a and b by 1.2, `(a)` by 1.1, nested brackets multiply, a weight that is written out
replaces the outer one, and `\\(` is a bracket that is meant: as ComfyUI's own CLIP tokenizer reads them.

`[a|b]`, `[from:to:0.5]`, `{a|b}`, `__card__`, `<b>`, `<lora:name:0.8>`, `BREAK` and calls such as `COUPLE(0 0.5)`
belong to other programs and packs. What is in them is not taken apart, and their letters are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

SEPARATORS = ",\n\r、，；"
# Words of their own that divide a prompt into parts, each encoded by itself: A1111, Regional Prompter.
_DIVIDERS = "BREAK|AND|ADDBASE|ADDCOL|ADDROW|ADDCOMM"
_EDGE = rf"\s{SEPARATORS}()"
_COUPLE = "COUPLE"  # prompt-control's call that does the same
# An "extra network" of A1111: a file, by name, and its strength.
NETWORK = re.compile(r"(?i:<(?:lora|lyco|locon|loha|hypernet):[^<>]*>)")
_TOKEN = re.compile(
    r"(?P<escaped>\\[()\[\]{}])"
    rf"|(?P<beside>{NETWORK.pattern})"
    r"|(?P<glued><[A-Za-z/!][^<>]*>|(?<!\w)__[\w/.*-]+?__(?!\w))"
    rf"|(?P<divider>(?<![^{_EDGE}])(?:{_DIVIDERS})(?![^{_EDGE}]))"
    r"|(?P<call>(?<!\w)[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)*(?=\())"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])"
    rf"|(?P<separator>[{SEPARATORS}])"
    rf"|(?P<text>[^\\()\[\]{{}}<_A-Z{SEPARATORS}]+|.)",
    re.DOTALL,
)
_CLOSES = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True)
class Unit:
    """The smallest part of a prompt that is read as one.

    `kind` is `text`; `open` or `close`, a bracket of ComfyUI's weights, `partner` units away; `separator`;
    `glued`, others' syntax within a tag; `beside`, others' that stands for itself; `divider`, others' that also
    divides the prompt into parts.
    """

    kind: str
    text: str
    partner: int = 0

    @property
    def foreign(self) -> bool:
        return self.kind in ("glued", "beside", "divider")

    @property
    def apart(self) -> bool:
        return self.kind in ("beside", "divider")


def units(prompt: str) -> list[Unit]:
    """`prompt` in units, whose texts add up to it, but that a weight's bracket without its partner is escaped."""
    tokens = _TOKEN.finditer(prompt)
    kinds, texts = [], []
    for token in tokens:
        kinds.append(token.lastgroup)
        texts.append(token[0])
    partner = _partners(kinds, texts)
    found: list[Unit] = []
    opened: list[int] = []
    at = 0
    while at < len(texts):
        kind, text, end = kinds[at], texts[at], at
        if kind == "call":
            end = partner.get(at + 1, at)
            kind = "text" if end == at else "divider" if text == _COUPLE else "beside"
        elif text in "[{" and kind == "open":
            end = partner.get(at, at)
            kind = "glued" if end > at else "text"
        elif kind in ("open", "close") and at not in partner:
            kind, text = "text", f"\\{text}" if text in "()" else text
        if end > at:
            text = "".join(texts[at : end + 1])
        _append(found, opened, Unit("text" if kind == "escaped" else kind, text))
        at = end + 1
    return found


def _append(found: list[Unit], opened: list[int], unit: Unit) -> None:
    """Add a unit: text to text, a closing bracket to its partner."""
    if unit.kind == "text" and found and found[-1].kind == "text":
        found[-1] = Unit("text", found[-1].text + unit.text)
        return
    if unit.kind == "open":
        opened.append(len(found))
    elif unit.kind == "close":
        start = opened.pop()
        found[start] = replace(found[start], partner=len(found) - start)
        unit = replace(unit, partner=start - len(found))
    found.append(unit)


def _partners(kinds: list[str], texts: list[str]) -> dict[int, int]:
    """Each bracket's partner, both ways, by position; a bracket without one is left out, and one that it crosses."""
    partner: dict[int, int] = {}
    opened: list[int] = []
    waiting = dict.fromkeys("([{", 0)
    for at, (kind, text) in enumerate(zip(kinds, texts, strict=True)):
        if kind == "open":
            opened.append(at)
            waiting[text] += 1
        elif kind == "close" and waiting[_CLOSES[text]]:
            while True:
                start = opened.pop()
                waiting[texts[start]] -= 1
                if texts[start] == _CLOSES[text]:
                    break
            partner[start], partner[at] = at, start
    return partner
