"""Which tags a caption holds, and how they are written, to the byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.taggers.captions import CaptionWriter
from shinymas_loha.taggers.labels import Labels
from shinymas_loha.taggers.options import TaggingOptions

TAGS = {"general": "rating", "long_hair": "general", "1girl": "general", "hair_(style)": "general", "^_^": "general",
        "sakuragi_mano": "character", "kazano_hiori": "character", "": ""}
LABELS = Labels(tuple(TAGS), tuple(TAGS.values()))
CHANCES = np.float32([0.99, 0.5, 0.9, 0.5, 0.35, 0.85, 0.95, 1.0])


def caption(chances=CHANCES, **options):
    writer = CaptionWriter(LABELS, TaggingOptions(**options), (0.6, 0.9))
    return writer.caption(writer.tags(np.float32(chances)))


@pytest.mark.parametrize(("options", "text"), [
    # characters first, surest first, equals as the model lists them; a threshold that is just reached counts
    ({}, "kazano hiori, sakuragi mano, 1girl, long hair, hair (style), ^_^"),
    ({"order": "model"}, "sakuragi mano, kazano hiori, long hair, 1girl, hair (style), ^_^"),
    ({"order": "alphabet"}, "kazano hiori, sakuragi mano, 1girl, ^_^, hair (style), long hair"),
    ({"character_tags": False}, "1girl, long hair, hair (style), ^_^"),
    ({"threshold": 0.5, "character_threshold": 0.9}, "kazano hiori, 1girl, long hair, hair (style)"),
    ({"threshold": 0.0, "character_threshold": 0.0}, "kazano hiori, 1girl"),  # 0.6 and 0.9, its authors' own
    ({"threshold": 1.0, "character_threshold": 1.0}, ""),
    ({"underscores": True, "character_tags": False}, "1girl, long_hair, hair_(style), ^_^"),
    ({"escape": True, "character_tags": False}, "1girl, long hair, hair \\(style\\), ^_^"),
    ({"exclude": "Long_Hair, hair (style),,  kazano hiori"}, "sakuragi mano, 1girl, ^_^"),
    ({"exclude": "hair \\(style\\)、long hair，1GIRL\nsolo", "character_tags": False}, "^_^"),
    ({"prefix": "  my  girl, long hair, ", "character_tags": False}, "my girl, long hair, 1girl, hair (style), ^_^"),
    ({"prefix": "my girl", "threshold": 1.0, "character_threshold": 1.0}, "my girl"),
])
def test_a_caption_to_the_letter(options, text):
    assert caption(**options) == text


@pytest.mark.parametrize(("name", "written"), [
    ("long_hair", "long hair"), ("hair_between_eyes", "hair between eyes"), ("v-shaped_eyebrows", "v-shaped eyebrows"),
    ("a.i._channel", "a.i. channel"), ("fate/stay_night", "fate/stay night"), ("櫻木_真乃", "櫻木 真乃"),
    ("^_^", "^_^"), (">_<", ">_<"), ("o_o", "o_o"), ("0_0", "0_0"), ("(o)_(o)", "(o)_(o)"), ("<o>_<o>", "<o>_<o>"),
    ("<|>_<|>", "<|>_<|>"), ("||_||", "||_||"), ("._.", "._."), ("+_-", "+_-"), (":3", ":3"), (";)", ";)"),
])
def test_faces_keep_their_underscores(name, written):
    writer = CaptionWriter(Labels((name,), ("general",)), TaggingOptions(), (0.35, 0.85))
    assert writer.tags(np.float32([1.0])) == [written]


def test_two_names_that_are_spelt_alike_are_one_tag():
    writer = CaptionWriter(Labels(("long_hair", "long hair"), ("general",) * 2), TaggingOptions(), (0.35, 0.85))
    assert writer.tags(np.float32([0.9, 0.8])) == ["long hair"]


@pytest.mark.parametrize(("before", "options", "after"), [
    ("solo, smile", {}, "solo, smile, 1girl, long hair"),
    ("1girl, solo\n", {}, "1girl, solo, long hair"),
    ("Long_Hair , solo,", {}, "Long_Hair , solo, 1girl"),  # what is there stays as it is spelt
    ("solo\nsmile\n1girl\n", {}, "solo, smile, 1girl, long hair"),  # one tag a line: kohya would read the first alone
    ("", {}, "1girl, long hair"),
    (" \n", {}, "1girl, long hair"),
    ("solo", {"prefix": "my girl"}, "my girl, solo, 1girl, long hair"),
    ("my_girl, solo", {"prefix": "my girl"}, "my_girl, solo, 1girl, long hair"),
    ("solo", {"prefix": "my girl, idol"}, "my girl, idol, solo, 1girl, long hair"),
    ("a girl, who smiles.", {}, "a girl, who smiles., 1girl, long hair"),
])
def test_appending(before, options, after):
    writer = CaptionWriter(LABELS, TaggingOptions(**options), (0.35, 0.85))
    assert writer.appended(before, ["1girl", "long hair"]) == after
    assert writer.appended(after, ["1girl", "long hair"]) == after  # a second time changes nothing


@pytest.mark.parametrize("there", ["1girl\nlong_hair\n", "long hair,1girl", "1girl, long hair, solo\n\n"])
def test_nothing_to_append_leaves_a_caption_as_it_is(there):
    assert CaptionWriter(LABELS, TaggingOptions(), (0.35, 0.85)).appended(there, ["1girl", "long hair"]) == there


@given(st.lists(st.floats(0, 1, width=32), min_size=8, max_size=8), st.floats(0, 1, exclude_min=True, width=32))
def test_exactly_the_general_tags_at_or_over_the_threshold(chances, threshold):
    found = caption(chances, threshold=float(threshold), character_tags=False).split(", ")
    wanted = {name.replace("_", " ") if name != "^_^" else name for name, chance, category in zip(
        TAGS, chances, TAGS.values(), strict=True) if category == "general" and chance >= np.float32(threshold)}
    assert set(found) - {""} == wanted


@pytest.mark.parametrize(("options", "text"), [
    ({"threshold": 1.5}, "threshold: 1.5 is outside 0.0 to 1.0"),
    ({"character_threshold": float("nan")}, "character_threshold: nan is not a finite number"),
    ({"existing": "overwrite"}, "existing: 'overwrite' is not one of only where missing, append, replace"),
    ({"order": "random"}, "order: 'random' is not one of confidence, model, alphabet"),
    ({"batch_size": 0}, "batch_size: 0 is outside 1 to 256"),
])
def test_choices_that_are_none(options, text):
    with pytest.raises(SettingsError) as refused:
        TaggingOptions(**options)
    assert text in str(refused.value)
