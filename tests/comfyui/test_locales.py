"""Translations and help pages: they follow the nodes, and a real server hands them out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from kit.comfyui_server import PACK_NAME

PACK = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "ja", "zh", "zh-TW", "ko")
TRANSLATED_HELP = LANGUAGES[1:]


def read(language: str, file: str) -> dict[str, Any]:
    return json.loads((PACK / "locales" / language / file).read_text(encoding="utf-8"))


def said_by(node: dict[str, Any]) -> dict[str, Any]:
    """What /object_info says of a node, in the layout of nodeDefs.json."""
    inputs = (node["input"].get("required", {}) | node["input"].get("optional", {})).items()
    outputs = enumerate(zip(node["output_name"], node["output_tooltips"], strict=True))
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": {name: {"name": name, "tooltip": options["tooltip"]} for name, (_, options) in inputs},
        "outputs": {str(number): {"name": name, "tooltip": tooltip} for number, (name, tooltip) in outputs},
    }


def keys(tree: Any) -> Any:
    return {key: keys(value) for key, value in tree.items()} if isinstance(tree, dict) else None


def texts(tree: Any) -> list[str]:
    return [text for value in tree.values() for text in texts(value)] if isinstance(tree, dict) else [tree]


def test_english_is_what_the_nodes_say(object_info):
    english = read("en", "nodeDefs.json")
    assert english == {name: said_by(object_info[name]) for name in english}


@pytest.mark.parametrize("language", TRANSLATED_HELP)
@pytest.mark.parametrize("file", ["nodeDefs.json", "main.json"])
def test_every_language_has_the_same_keys(language, file):
    assert keys(read(language, file)) == keys(read("en", file))


def test_categories_exist(object_info):
    used = {part for name, node in object_info.items() if name.startswith("ShinyMas")
            for part in node["category"].split("/")}
    assert set(read("en", "main.json")["nodeCategories"]) <= used


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("file", ["nodeDefs.json", "main.json"])
def test_texts_are_literal(language, file):
    """The front end gives these characters a meaning (vue-i18n: placeholder, link, plural)."""
    for text in texts(read(language, file)):
        assert text.strip() == text != ""
        assert not set("{}@|") & set(text), text


def test_the_server_returns_them(server):
    served = server.get("/i18n")
    for language in LANGUAGES:
        assert served[language]["nodeDefs"] == read(language, "nodeDefs.json")
        assert served[language]["nodeCategories"] == read(language, "main.json")["nodeCategories"]


def test_help_pages_are_served_in_every_language(server, object_info):
    """The front end asks for <node>/<language>.md, and for <node>.md where that is missing."""
    english = sorted((PACK / "web" / "docs").glob("*.md"))
    assert english
    for page in english:
        assert page.stem in object_info
        for path in (page, *(page.with_suffix("") / f"{language}.md" for language in TRANSLATED_HELP)):
            address = path.relative_to(PACK / "web").as_posix()
            assert server.get_bytes(f"/extensions/{PACK_NAME}/{address}") == path.read_bytes()


def test_the_pictures_of_help_pages_are_served(server):
    """Their addresses count from the folder of the pages, in each language."""
    shown = [(page, address) for page in sorted((PACK / "web" / "docs").rglob("*.md"))
             for address in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))]
    assert len(shown) >= 70
    for page, address in shown:
        language = page.stem if page.stem in TRANSLATED_HELP else "en"
        picture = server.get_bytes(f"/extensions/{PACK_NAME}/docs/{address}")
        assert address.endswith(f".{language}.png") and picture.startswith(b"\x89PNG") and len(picture) < 80_000
