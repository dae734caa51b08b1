"""The embedded cast against what the public model page says."""

import hashlib
import re
from pathlib import Path

import pytest
from shinymas_loha.characters import DEFAULT_CAST, EMBEDDED, UnknownCharacter, build, load_casts, read

CAST = read(EMBEDDED, DEFAULT_CAST)
EACH = pytest.mark.parametrize("character", CAST.characters, ids=lambda c: c.name)
# Of the page's lists, "name: tag, tag, …" a line, in its order: one changed letter changes it.
PAGE_SHA256 = "e543e52d7ea16049b92e6200ba4a44ff909bdf80edb4eaf88786f9c9587060a1"
LENGTHS = {"short hair", "medium hair", "long hair"}
SEVERAL_COLOURS = {"multicolored hair", "two-tone hair", "gradient hair", "streaked hair"}
HAIR_COLOUR = re.compile(r"(black|brown|blonde|red|orange|purple|grey|green|blue|light brown) hair")
LOOKS = re.compile(
    r".* (hair|eyes|bangs|bun)|.*(mole|ponytail|two side up).*|twintails|ahoge|braid|hairclip|glasses|fangs|"
    r"hair (ornament|ribbon)|hair between eyes|earrings|choker|bandaid"
)


def test_names_and_tags_are_the_pages_to_the_letter():
    lines = "\n".join(f"{c.name}: {', '.join(c.tags)}" for c in CAST.characters)
    assert hashlib.sha256(lines.encode()).hexdigest() == PAGE_SHA256


def test_counts_of_the_page():
    assert len(CAST.characters) == 26
    assert sum(c.cards for c in CAST.characters) == 966
    assert len({tag for c in CAST.characters for tag in c.tags}) == 94
    assert len({c.unit for c in CAST.characters}) == 8
    assert CAST.withheld == ("breasts", "large breasts", "cleavage")


@EACH
def test_every_entry_is_complete(character):
    assert len(character.tags) == len(set(character.tags)) == 20
    assert re.fullmatch("[0-9A-F]{6}", character.colour)
    assert re.fullmatch("[\u3041-\u3096]+ [\u3041-\u3096]+", character.kana)
    assert character.given in character.aliases
    assert character.ja and character.unit


@EACH
def test_identity_says_what_she_looks_like_without_contradiction(character):
    identity = set(character.identity)
    assert identity and identity <= set(character.tags)
    assert all(LOOKS.fullmatch(tag) for tag in identity)
    assert len(identity & LENGTHS) <= 1
    assert len([tag for tag in identity if tag.endswith(" eyes") and tag != "hair between eyes"]) == 1
    colours = [tag for tag in identity if HAIR_COLOUR.fullmatch(tag)]
    assert len(colours) == 1 or (colours and identity & SEVERAL_COLOURS)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Kazano Hiori", "Kazano Hiori"), ("hiori  kazano", "Kazano Hiori"), ("KAZANO_HIORI", "Kazano Hiori"),
        ("風野灯織", "Kazano Hiori"), ("かざの ひおり", "Kazano Hiori"), ("Oosaki Amana", "Osaki Amana"),
        ("tenka oosaki", "Osaki Tenka"), ("Saijō Juri", "Saijo Juri"), ("ＬＵＣＡ", "Ikaruga Luca"),
        ("Asakura Tooru", "Asakura Toru"), ("八宮めぐる", "Hachimiya Meguru"), ("とおる", "Asakura Toru"),
        ("カザノ ヒオリ", "Kazano Hiori"), ("ﾋｵﾘ", "Kazano Hiori"), ("めぐる", "Hachimiya Meguru"),
        ("ヒオリ・カザノ", "Kazano Hiori"), ("noctchill", "Asakura Toru"), ("l’antica", "Tsukioka Kogane"),
        ("STRAYLIGHT", "Serizawa Asahi"), ("Osaki", None), ("", None), ("・", None),
    ],
)  # fmt: skip
def test_found_by_any_of_her_names(text, name):
    if name is None:
        with pytest.raises(UnknownCharacter):
            CAST.find(text)
    else:
        assert CAST.find(text).name == name


def test_recognises_known_files_by_hash():
    assert CAST.recognise("DD92ECA6E881B10F84928F7EB7A94912304A700334CFE78EEEDC096B726314D5") == (
        "v2.1",
        "shinymas-v2.1-000014",
    )
    assert CAST.recognise("0" * 64) is None
    assert len(CAST.members("v1.0")) == 25 and len(CAST.members("v2.1")) == 26


def test_cinderella_girls_are_names_alone_and_said_not_to_be_trained():
    cast = load_casts(Path("/nowhere")).get("cinderella-girls")
    assert len(cast.characters) == 193
    assert not any(who.tags or who.cards for who in cast.characters)
    assert {who.unit for who in cast.characters} == {"Cute", "Cool", "Passion"}
    uzuki = cast.find("島村卯月")
    assert uzuki is cast.find("Uzuki") is cast.find("うづき") is cast.find("Uzuki Shimamura")
    prompt = build(cast, uzuki, version="v2.1", after="brown hair")
    assert prompt.positive == "Shimamura Uzuki, brown hair"
    assert prompt.notes == ("note: Cinderella Girls were not trained on purpose; the model page says that their "
                            "prompts mostly work",)
    old = build(cast, uzuki, version="v1.0")
    assert old.positive == "Uzuki Shimamura" and "was not trained on Cinderella Girls" in old.notes[0]
