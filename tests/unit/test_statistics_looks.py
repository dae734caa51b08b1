"""What a character looks like by her tags: nothing about a body or a scene, nothing that contradicts itself."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shinymas_loha.characters import EMBEDDED, read
from shinymas_loha.characters.statistics.looks import contradictions, suggest

CAST = read(EMBEDDED, "shinymas")
LOOKS = re.compile(r"(?!.*(breast|skin|thigh|tan|midriff|cleavage|navel)).*")
LENGTHS = ({"short hair", "very short hair"}, {"medium hair"}, {"long hair", "very long hair"})
COLOUR = re.compile(r"(black|brown|blonde|red|orange|purple|grey|green|blue|white|pink|aqua) (hair|eyes)")
TAGS = sorted({tag for who in CAST.characters for tag in who.tags} | {
    "very long hair", "heterochromia", "white hair", "large breasts", "thighs", "nude", "2girls", "1boy"})
NO_LIFT: dict[str, float] = {}


def by_rank(tags):
    """Counts of 100 pictures that put these tags into this order."""
    return {tag: 97 - 4 * place for place, tag in enumerate(tags)}


def test_suggestions_from_the_pages_lists_are_nearly_what_people_chose():
    """The same in most; at most two tags more or less elsewhere, where the order alone cannot tell."""
    same = 0
    for who in CAST.characters:
        found = set(suggest(by_rank(who.tags), 100, NO_LIFT, CAST.withheld))
        same += found == set(who.identity)
        assert len(found - set(who.identity)) <= 2 and len(set(who.identity) - found) <= 2, who.name
    assert same >= 14


@given(st.dictionaries(st.sampled_from(TAGS), st.integers(0, 100)), st.integers(100, 120))
def test_no_suggestion_contradicts_itself(counts, pictures):
    found = suggest(counts, pictures, NO_LIFT, CAST.withheld)
    assert len(set(found)) == len(found) and set(found) <= counts.keys()
    assert not contradictions(set(found), of_one_picture=False)
    assert sum(bool(set(found) & family) for family in LENGTHS) <= 1
    for thing, several in (("hair", "multicolored"), ("eyes", "heterochromia")):
        colours = [tag for tag in found if COLOUR.fullmatch(tag) and tag.endswith(thing)]
        assert len(colours) <= 1 or any(several in tag or "-tone" in tag or "gradient" in tag or "streaked" in tag
                                        for tag in found)
    assert not {"1girl", "solo", "smile", "outdoors", "shirt", "dark skin", "nude"} & set(found)
    assert all(LOOKS.fullmatch(tag) for tag in found)


def test_what_is_withheld_is_never_suggested():
    counts = {"brown hair": 90, "glasses": 90, "hair bun": 90}
    assert suggest(counts, 100, NO_LIFT, ()) == ("brown hair", "hair bun", "glasses")
    assert suggest(counts, 100, NO_LIFT, ("Glasses", "b-u-n")) == ("brown hair",)


@pytest.mark.parametrize(("counts", "identity"), [
    # A unit-mate's hair in some pictures; a shade beside its colour.
    ({"black hair": 90, "blonde hair": 45}, ("black hair",)),
    ({"brown hair": 80, "light brown hair": 60}, ("brown hair",)),
    ({"black hair": 50, "blonde hair": 50}, ("black hair",)),
    # Two colours that are hers at once, as long as both are usual.
    ({"black hair": 80, "blonde hair": 60, "two-tone hair": 50}, ("black hair", "blonde hair", "two-tone hair")),
    ({"black hair": 80, "blonde hair": 30, "two-tone hair": 50}, ("black hair", "two-tone hair")),
    ({"blue eyes": 60, "red eyes": 55, "heterochromia": 50}, ("blue eyes", "red eyes", "heterochromia")),
    ({"long hair": 90, "very long hair": 60, "short hair": 50}, ("long hair", "very long hair")),
    ({"long hair": 90, "very long hair": 30}, ("long hair",)),
    ({"ponytail": 50, "high ponytail": 45, "twintails": 60}, ("twintails",)),
    ({"hair ornament": 90, "hairclip": 60}, ("hairclip",)),
    ({"hair ornament": 90}, ("hair ornament",)),
    ({"brown eyes": 24, "ahoge": 39}, ()),
])
def test_choices(counts, identity):
    assert suggest(counts, 100, NO_LIFT, ()) == identity


def test_a_rare_tag_that_nobody_else_has_is_hers():
    assert suggest({"mole": 25}, 100, {"mole": 5.0}, ()) == ("mole",)
    assert suggest({"mole": 25}, 100, {"mole": 2.0}, ()) == suggest({"mole": 15}, 100, {"mole": 9.0}, ()) == ()


@pytest.mark.parametrize(("tags", "found"), [
    ("brown hair, blonde hair, 1girl", [("hair colour", ("blonde hair", "brown hair"))]),
    ("brown hair, light brown hair", []),
    # Two are named, of two colours: what is counted of a million captions stays small.
    ("brown hair, light brown hair, red hair, white hair", [("hair colour", ("brown hair", "red hair"))]),
    ("solo, 2girls, multiple girls", [("people", ("solo", "multiple girls"))]),
    ("brown hair, blonde hair, gradient hair", []),
    ("long hair, very long hair", []),
    ("long hair, short hair", [("hair length", ("long hair", "short hair"))]),
    ("red eyes, blue eyes", [("eye colour", ("blue eyes", "red eyes"))]),
    ("red eyes, blue eyes, heterochromia", []),
    ("solo, multiple girls", [("people", ("solo", "multiple girls"))]),
    ("solo, 1girl", []),
    # Several people may well have two colours; one picture says so, a list of hundreds does not.
    ("brown hair, blonde hair, 2girls", []),
    ("brown hair, blonde hair, 1girl, 1boy", []),
    ("brown hair, blonde hair, 2girls, solo", [("people", ("solo", "2girls"))]),
])
def test_contradictions_in_a_caption(tags, found):
    assert contradictions(set(tags.split(", ")), of_one_picture=True) == found


def test_contradictions_in_the_pages_lists():
    """As the lists of the page have them: unit-mates' colours, and `solo` with `multiple girls` in 21 of 26."""
    kinds = [kind for who in CAST.characters for kind, _ in contradictions(set(who.tags), of_one_picture=False)]
    assert kinds.count("people") == 21
    mano = contradictions(set(CAST.find("Mano").tags), of_one_picture=False)
    assert ("hair colour", ("blonde hair", "brown hair", "light brown hair")) in mano


def test_order_makes_no_difference():
    counts = by_rank(CAST.find("Luca").tags)
    turned = list(counts.items())
    random.Random(0).shuffle(turned)
    assert suggest(counts, 100, NO_LIFT, ()) == suggest(dict(turned), 100, NO_LIFT, ())
