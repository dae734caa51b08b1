"""What the browser gets: small, and every word of it in every language."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "web" / "js").glob("*.js"))


def test_the_scripts_stay_small():
    assert sum(path.stat().st_size for path in SCRIPTS) <= 60_000


def test_every_word_that_is_said_is_written_and_the_other_way_round():
    said = set()
    for path in SCRIPTS:
        for call in re.findall(r"\bword\(([^()]*)", path.read_text(encoding="utf-8")):
            said |= set(re.findall(r'"([a-z_ #:]+)"', call))
    words = json.loads((ROOT / "locales" / "en" / "main.json").read_text(encoding="utf-8"))["shinymas"]
    assert said == set(words)
