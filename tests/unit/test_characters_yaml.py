"""Broken and hostile cast files: each is refused by a message with file, line and key."""

import pytest
from shinymas_loha.characters import CastError, parse

ENTRY = "characters:\n  - name: A B\n    tags: [smile]\n"
GOOD = "version: 1\n" + ENTRY
MODEL = GOOD + "models:\n  v1:\n    trigger: '{name}'\n"

REFUSED = {
    "empty": ("", "line 1: the file is empty"),
    "not a mapping": ("- 1\n", "must be a mapping"),
    "syntax": ("version: 1\ncharacters: [\n", "line 3: "),
    "tab": ("version: 1\n\tx: 1\n", "line 2: "),
    "two documents": (GOOD + "---\n" + GOOD, "line 5: expected a single document in the stream, but found another"),
    "NUL": ("version: 1\n# \x00", "line 2: holds a character"),
    "version missing": (ENTRY, "line 1: the key 'version' is missing"),
    "version 2": (GOOD.replace("1", "2", 1), "line 1: version: must be 1"),
    "version true": (GOOD.replace("1", "true", 1), "line 1: version: must be a whole number"),
    "characters missing": ("version: 1\n", "the key 'characters' is missing"),
    "no characters": ("version: 1\ncharacters: []\n", "line 2: characters: lists nobody"),
    "unknown top key": (GOOD + "charcters: 1\n", "line 5: charcters: is not a key that belongs here"),
    "duplicate top key": (GOOD + "version: 1\n", "line 5: version: stands here twice"),
    "duplicate key": (GOOD + "    name: C\n", "line 5: characters[0].name: stands here twice"),
    "unknown key": (GOOD + "    tgas: [a]\n", "line 5: characters[0].tgas: is not a key"),
    "anchor": (GOOD + "withheld: &a [b]\n", "line 5: anchors and aliases are not allowed here ('a')"),
    "alias": ("version: 1\nx: *a\n", "line 2: anchors and aliases"),
    "deep": ("version: 1\ncharacters: " + "[" * 40 + "]" * 40, "line 2: nested deeper than 8 levels"),
    "python tag": (GOOD + "withheld: !!python/object:os.system []\n    x: 1\n", "line 6: "),
    "tagged scalar": ("version: 1\ncharacters:\n  - name: !!python/name:os.system x\n    tags: [a]\n",
                      "line 3: characters[0].name: must be text"),
    "name a number": (GOOD.replace("A B", "12"), 'line 3: characters[0].name: must be text; put it in quotes: "12"'),
    "name yes": (GOOD.replace("A B", "yes"), 'put it in quotes: "yes"'),
    "name empty": (GOOD.replace("A B", '" "'), "line 3: characters[0].name: is empty"),
    "name punctuation": (GOOD.replace("A B", "'!?'"), "characters[0].name: holds no letter or digit"),
    "name with bidi": (GOOD.replace("A B", '"A \\u202e B"'), "characters[0].name: must be one line"),
    "name long": (GOOD.replace("A B", "A" * 501), "at most 500 printable characters"),
    "name a list": (GOOD.replace("A B", "[A]"), "characters[0].name: must be text"),
    "tags missing": ("version: 1\ncharacters:\n  - name: A\n", "line 3: characters[0]: the key 'tags' is missing"),
    "tags text": (GOOD.replace("[smile]", "smile"), "line 4: characters[0].tags: must be a list"),
    "tag a number": (GOOD.replace("smile", "smile, 3"), "line 4: characters[0].tags[1]: must be text"),
    "tag twice": (GOOD.replace("smile", "smile, smile"), "characters[0].tags[1]: 'smile' stands in this list twice"),
    "tag with comma": (GOOD.replace("smile", "'a, b'"), "characters[0].tags[0]: holds a comma"),
    "identity stranger": (GOOD + "    identity: [hat]\n", "line 5: characters[0].identity[0]: 'hat' is not among"),
    "colour unquoted": (GOOD + "    colour: 006047\n", "line 5: characters[0].colour: must be text; put it in quotes"),
    "colour name": (GOOD + "    colour: red\n", "line 5: characters[0].colour: must be six hex digits"),
    "cards text": (GOOD + "    cards: many\n", "line 5: characters[0].cards: must be a whole number"),
    "cards negative": (GOOD + "    cards: -1\n", "characters[0].cards: must be a whole number"),
    "cards huge": (GOOD + "    cards: " + "9" * 5000 + "\n", "characters[0].cards: must be a whole number"),
    "same name": (GOOD + "  - name: b a\n    tags: [x]\n", "line 5: characters[1]: 'ab' would find both A B and b a"),
    "same alias": (GOOD + "    aliases: [C]\n  - name: D\n    aliases: [c]\n    tags: [x]\n", "both A B and D"),
    "trigger missing": (GOOD + "models:\n  v1: {file: x}\n", "line 6: models.v1: the key 'trigger' is missing"),
    "trigger without name": (GOOD + "models:\n  v1: {trigger: x}\n", "line 6: models.v1.trigger: must name"),
    "trigger unknown field": (GOOD + "models:\n  v1: {trigger: '{name.__class__}'}\n", "models.v1.trigger: must name"),
    "hash": (MODEL + "    sha256: {a: 'ff'}\n", "line 8: models.v1.sha256.a: must be a sha256"),
    "without stranger": (MODEL + "    without: [Nobody]\n", "line 8: models.v1.without: 'Nobody' is not a character"),
    "withheld text": (GOOD + "withheld: hat\n", "line 5: withheld: must be a list"),
    "too large": (GOOD + "#" * 262144, "the file is over 256 KB"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_file_line_and_key(case):
    text, message = REFUSED[case]
    with pytest.raises(CastError) as raised:
        parse(text.encode(), "mine.yaml", "mine")
    assert str(raised.value).startswith("mine.yaml, line ")
    assert message in str(raised.value)


def test_not_utf8_names_the_line():
    with pytest.raises(CastError, match="mine.yaml, line 2: not UTF-8"):
        parse("version: 1\nx: 真乃".encode("shift_jis"), "mine.yaml", "mine")


def test_the_smallest_cast_and_a_byte_order_mark():
    cast = parse(b"\xef\xbb\xbf" + GOOD.encode(), "mine.yaml", "mine")
    assert (cast.name, cast.characters[0].name, cast.characters[0].cards) == ("mine", "A B", None)


@pytest.mark.parametrize(
    ("name", "family", "given"), [("Mano", "", "Mano"), ("A B", "A", "B"), ("A van B", "A", "van B")]
)
def test_family_name_first(name, family, given):
    character = parse(GOOD.replace("A B", name).encode(), "f", "c").characters[0]
    assert (character.family, character.given) == (family, given)
