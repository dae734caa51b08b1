"""The prompt builder: examples for people, properties for everything else."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shinymas_loha.characters import DEFAULT_CAST, EMBEDDED, NEGATIVE, QUALITY, Character, PromptError, build, read
from shinymas_loha.characters.tags import split, tag_key

CAST = read(EMBEDDED, DEFAULT_CAST)


def positive(name, **settings):
    return build(CAST, CAST.find(name), **settings).positive


def test_identity_is_the_default():
    assert positive("Hiori", before=QUALITY) == (
        "masterpiece, best quality, Kazano Hiori, black hair, long hair, ponytail, purple eyes, mole, "
        "mole under mouth, 1girl, solo"
    )


def test_top_is_the_pages_order_less_what_is_withheld_or_contradicts_solo():
    assert positive("Mano", tag_set="top") == (
        "Sakuragi Mano, brown eyes, smile, 1girl, open mouth, brown hair, looking at viewer, solo, bangs, "
        "light brown hair, outdoors, skirt, holding, medium hair, blush, shirt, dutch angle, hair ornament, "
        "blonde hair"
    )


@pytest.mark.parametrize(
    ("version", "trigger"), [("v2.1", "Kazano Hiori"), ("v2.0", "Kazano Hiori"), ("v1.0", "Hiori Kazano")]
)
def test_the_trigger_is_what_the_version_wants(version, trigger):
    assert positive("Hiori", version=version, max_tags=0) == trigger


def test_at_most_n_tags_of_hers_and_left_out_ones_take_no_place():
    assert positive("Kogane", tag_set="top", max_tags=4, exclude="Bangs", before="long_hair") == (
        "long_hair, Tsukioka Kogane, brown hair, looking at viewer, brown eyes, 1girl"
    )


@pytest.mark.parametrize(("weight", "name"), [(1.15, "(Komiya Kaho:1.15)"), (1.0, "Komiya Kaho")])
def test_the_weight_stands_at_the_name(weight, name):
    assert positive("Kaho", max_tags=0, weight=weight) == name


def test_a_typed_weight_wins_over_the_lists_plain_tag():
    assert positive("Asahi", after="(Blue_Eyes:1.3), (grey hair)") == (
        "Serizawa Asahi, short hair, 1girl, solo, (Blue_Eyes:1.3), (grey hair)"
    )


def test_what_is_excluded_never_appears():
    assert positive("Asahi", exclude="solo, (1GIRL:1.2), grey_hair", before="solo") == (
        "Serizawa Asahi, short hair, blue eyes"
    )
    assert positive("Asahi", exclude="serizawa asahi", max_tags=1) == "grey hair"


def test_two_characters_become_2girls():
    first = positive("Mano", before=QUALITY, weight=1.2)
    assert positive("Meguru", previous=first, before=QUALITY) == (
        "masterpiece, best quality, (Sakuragi Mano:1.2), brown hair, medium hair, brown eyes, 2girls, "
        "Hachimiya Meguru, blonde hair, long hair, twintails, ahoge, hairclip, blue eyes"
    )


def test_count_tags_follow_the_number_of_characters():
    text, counts = "", []
    for character in CAST.characters[:7]:
        text = build(CAST, character, previous=text, tag_set="top").positive
        tags = [tag.key for tag in split(text)]
        counts.append([tag for tag in tags if "girl" in tag or tag == "solo"])
    assert counts == [
        ["1girl", "solo"], ["2girls"], ["3girls"], ["4girls"], ["5girls"], ["multiple girls"], ["multiple girls"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"previous": "1girl, red hat"}, "2girls"),  # somebody who has no name
        ({"previous": "Hiori Kazano", "max_tags": 0}, "2girls"),
        ({"previous": "Sakuragi Mano, 1girl"}, "1girl"),  # the same character again
        ({"before": "Kazano Hiori"}, "2girls"),
        ({"after": "3girls"}, "3girls"),
        ({"previous": "masterpiece"}, "1girl"),
    ],
)
def test_how_many_there_are(settings, count):
    tags = [tag.key for tag in split(positive("Mano", **settings))]
    assert [tag for tag in tags if "girl" in tag] == [count]
    assert ("solo" in tags) == (count == "1girl")


def test_literal_brackets_are_escaped_and_a_cast_without_versions_takes_the_name():
    hanako = Character("Hanako (idol)", ("moon_(phase)", "1girl"))
    cast = replace(CAST, characters=(hanako,), models={})
    assert build(cast, hanako, version="v1.0", weight=1.1).positive == (
        "(Hanako \\(idol\\):1.1), moon \\(phase\\), 1girl"
    )


def test_v1_does_not_know_luca():
    with pytest.raises(PromptError, match="v1.0 does not know Ikaruga Luca: .*25 characters"):
        positive("Luca", version="v1.0")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"tag_set": "best"}, "tag_set 'best' is not one of identity, top"), ({"weight": float("nan")}, "weight nan")],
)
def test_unusable_settings(settings, message):
    with pytest.raises(PromptError, match=message):
        positive("Mano", **settings)


def test_few_cards_warn():
    assert build(CAST, CAST.find("Luca")).notes == (
        "warning: Ikaruga Luca was learnt from 4 cards only; expect a poor likeness",
    )
    assert build(CAST, CAST.find("Mikoto")).notes == ()


def test_withheld_text_is_reported():
    assert build(CAST, CAST.find("Mano"), after="(Large_Breasts:1.2)").notes == (
        "withheld: 'Large_Breasts' left out",
    )


def test_a_character_named_after_a_withheld_tag_has_no_prompt():
    with pytest.raises(PromptError, match="holds a withheld tag"):
        build(CAST, Character("Cleavage", ("smile",)))


def test_the_negative_prompt_keeps_pictures_safe():
    assert NEGATIVE.startswith("nsfw, lowres, bad anatomy") and NEGATIVE.endswith("username, blurry")
    assert build(CAST, CAST.find("Mano")).negative == NEGATIVE


PIECES = st.sampled_from([
    "breasts", "large breasts", "Large_Breasts", "cleavage", "ＣＬＥＡＶＡＧＥ", "brea\u200bsts", "b_r_e_a_s_t_s",
    "brea", "sts", "smile", "Smile", "long_hair", "1girl", "2girls", "solo", "Kazano Hiori", "(", ")", ":1.2", "\\(",
    "\\", ",", ", ", "\n", " ", "_", "1.2",
])  # fmt: skip
TYPED = st.lists(PIECES, max_size=12).map("".join)
SETTINGS = st.fixed_dictionaries({
    "tag_set": st.sampled_from(["identity", "top"]), "max_tags": st.integers(0, 30),
    "weight": st.sampled_from([1.0, 1.15, 0.5]), "before": TYPED, "after": TYPED, "exclude": TYPED, "previous": TYPED,
    "version": st.sampled_from(["v2.1", "v2.0"]),
})  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(character=st.sampled_from(CAST.characters), settings=SETTINGS)
def test_any_prompt_is_free_of_withheld_tags_and_duplicates_and_the_same_again(character, settings):
    prompt = build(CAST, character, **settings)
    keys = [tag.key for tag in split(prompt.positive)]
    letters = ["".join(filter(str.isalnum, key)) for key in keys]
    assert not any(word in text for text in letters for word in ("breasts", "cleavage"))
    assert len(keys) == len(set(keys))
    excluded = {tag.key for tag in split(settings["exclude"])}
    assert not excluded & (set(keys) - {tag_key(character.name)})
    assert build(CAST, character, **settings) == prompt


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CAST.characters), st.integers(0, 25), st.sampled_from(["identity", "top"]))
def test_never_more_tags_than_asked_for(character, limit, tag_set):
    prompt = build(CAST, character, tag_set=tag_set, max_tags=limit).positive
    assert len(split(prompt)) <= limit + 1
    assert {tag.key for tag in split(prompt)} <= {*character.tags, character.name.lower()}


@pytest.mark.parametrize(("tags", "own", "notes"), [
    ("Kazano Hiori: smile, (mole:1.2)", "smile, (mole:1.2)", ()),
    ("smile, Skirt", "smile, skirt", ()),
    ("hiori kazano: smile", "smile", ()),
    ("Kazano Hiori:", "", ()),
    ("Sakuragi Mano: smile", None,
     ("tags: they were chosen for Sakuragi Mano; Kazano Hiori has those of tag_set",)),
    ("blue hat", None, ("tags: 'blue hat' is not one of Kazano Hiori's; type it into after",)),
    ("smile, BREAK, :3", "smile", ("tags: 'BREAK' is not one of Kazano Hiori's; type it into after",
                                   "tags: ':3' is not one of Kazano Hiori's; type it into after")),
    ("smile, (breasts:1.2)", "smile", ("withheld: 'breasts' left out",)),
])
def test_chosen_tags_take_the_place_of_the_set(tags, own, notes):
    prompt = build(CAST, CAST.find("Hiori"), tags=tags, max_tags=1, before="", tag_set="top")
    expected = "black hair" if own is None else own
    assert prompt.positive == ", ".join(filter(None, ("Kazano Hiori", expected)))
    assert prompt.notes == notes
    assert ", ".join(map(str, prompt.own)) == expected
