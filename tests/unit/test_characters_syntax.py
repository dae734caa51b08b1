"""What people paste from elsewhere: the syntax of other programs and packs reaches the text encoder to the letter."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shinymas_loha.characters import DEFAULT_CAST, EMBEDDED, build, read
from shinymas_loha.characters.syntax import units

CAST = read(EMBEDDED, DEFAULT_CAST)
MANO = CAST.find("Mano")
FOREIGN = [
    # parts of a prompt
    "BREAK", "hat BREAK glove BREAK hat", "hat\nBREAK\nglove,\nBREAK ,hat", "hat AND glove :1.2",
    "ADDCOMM hat ADDCOL glove", "COUPLE(0 0.5)", "hat COUPLE(0.5 1, 0 1) glove",
    # files and calls of other packs
    "<lora:my style (v1.2):0.8>", "<lora:a, b_c (d):0.8:0.6>", "<LYCO:x:1>", "<hypernet:x:0.5>", "hat <lora:x:1>",
    "hat COUPLE MASK(0 0.5, 0.2 1, 0.3) glove", "MASK(0  1 )", "FILL()", "STYLE(A1111, mean)", "ATTN()",
    "TE_WEIGHT(clip_g=2, clip_l=0.5)", "NOISE(0.1 , 3)", "DEF(X=(hat:1.2), glove)",
    # schedules and choices
    "[hat|glove]", "[ hat | (glove:1.2), BREAK ]", "[hat:glove:0.5]", "[hat, red:0.2,0.8]", "[[hat]]", "[hat]",
    "[SEQ:hat:0.2:glove, red:0.6]", "{hat|glove} ribbon, {red|blue} ribbon", "{2$$, $$hat|glove|bow}", "{{hat}}",
    "{hat, bow}", "${season=!__season__}", "__wild/card__ hat, __wild/card__ hat", "<wildcard:x y> hat",
    "<segment:yolo-face_yolov8m.pt,0.5,0.3>",
    # HTML
    "<b>hat</b>, <i>hat</i>", '<a href="x, y">(hat)</a>', "<!-- hat, glove -->", "<p>\n  hat, glove\n</p>", "&lt;b&gt;",
    # weights
    '("hat", "glove").blend(0.7, 0.3)', "('hat', 'red glove').and()", "(hat)++, glove--", "((hat))", "(hat)",
    "(hat, glove:1.30)", "( hat : 1.20 )", "1.2::hat::", "embedding:(my_words:1.2)", "hat:1.2", "moon \\(phase\\)",
    "\\[hat\\]",
    # kaomoji, and what else looks like syntax
    "^_^", ">_<", "o_o", ":3", "<3", ">:3", "\\m/", "|_|", "+_+", ";d", "d:", "=_=", "(hat)_(hat)", "100% hat", "a/b",
    "C:\\hat", "don't, \"say\" `it`", "*hat*", "#hat", "https://example.org/?a=1&b=2", "--ar 2:3", "@artist_name",
]  # fmt: skip
APART = [text for text in FOREIGN if "hat" not in text]


def written(text: str, **where: str) -> str:
    """What is written for a name alone, without the name."""
    prompt = build(CAST, MANO, max_tags=0, **({"after": text} | where)).positive
    return prompt.removeprefix("Sakuragi Mano").removeprefix(",").lstrip(" ")


@pytest.mark.parametrize("text", FOREIGN)
def test_it_passes_to_the_letter(text):
    assert written(text) == text
    assert written(f"first, {text}, last") == f"first, {text}, last"
    assert build(CAST, MANO, before=text, max_tags=0).positive.startswith(text)
    # Through one node, and through the next.
    once = build(CAST, MANO, after=text).positive
    assert text in build(CAST, CAST.find("Hiori"), previous=once).positive


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(APART), min_size=1, max_size=5, unique=True))
def test_any_of_it_beside_any_other(texts):
    prompt, at = written(", ".join(texts)), 0
    for text in texts:
        at = prompt.find(text, at)
        assert at >= 0, (text, prompt)
        at += len(text)


@given(st.text("ab(),:.12\\ \n_[]{}<>|BREAK、", max_size=60))
def test_units_add_up_to_the_prompt(text):
    """Nothing is lost and nothing made, but the escapes of brackets without a partner."""
    whole = "".join(unit.text for unit in units(text))
    assert whole.replace("\\", "") == text.replace("\\", "")


@pytest.mark.parametrize("opened", ["(", "[", "{", "([", "(]", "<", "A(", "(,"])
def test_many_brackets_take_no_time(opened):
    assert len("".join(unit.text for unit in units(opened * 30_000))) >= 30_000


def test_in_what_is_foreign_nothing_is_counted_twice():
    assert written("hat, [hat|bow], hat, [hat|bow]") == "hat, [hat|bow], [hat|bow]"


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("hat, hat BREAK hat", "hat BREAK hat"),  # a tag stands once in each part
        ("(hat, bow:1.2), bow", "(hat:1.2), bow"),  # only what changes is written anew
        ("(a [b|c] d, hat:1.2)", "(a [b|c] d, hat:1.2)"),
        ("(a [b|c] d, cleavage:1.2)", "(a [b|c] d:1.2)"),
        ("(hat, <lora:x:1>, cleavage:1.2)", "(hat:1.2), <lora:x:1>"),
        ("hat、bow，glove；red\nblue", "hat, bow, glove, red, blue"),
        ("(hat、bow:1.2)", "(hat, bow:1.2)"),
        ("[smile|large breasts], {cleavage}, <b>breasts</b>, <lora:cleavage:1>, COUPLE(breasts)", ""),
    ],
)
def test_what_is_ours_around_it(typed, text):
    assert written(typed) == text


@pytest.mark.parametrize("separator", ["、", "，", "；", ",", "\n"])
def test_separators(separator):
    assert written(separator.join(("hat", "bow", "hat"))) == "hat, bow"
    assert written("hat, bow, glove", exclude=separator.join(("hat", "glove"))) == "bow"


def test_each_part_has_its_own_people():
    typed = "2girls, park BREAK 1girl, solo, red hat BREAK 1girl, blue hat"
    prompt = build(CAST, MANO, before=f"{typed} BREAK").positive
    assert prompt == f"{typed} BREAK Sakuragi Mano, brown hair, medium hair, brown eyes, 1girl"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"after": "6+girls"}, "Sakuragi Mano, 6+girls"),
        ({"before": "(6+girls:1.2)"}, "(6+girls:1.2), Sakuragi Mano"),
        ({"previous": "6+girls, crowd"}, "6+girls, crowd, Sakuragi Mano"),
        ({"previous": "(1girl:1.3), hat"}, "(2girls:1.3), hat, Sakuragi Mano"),
    ],
)
def test_count_tags_keep_their_number_and_weight(settings, text):
    assert build(CAST, MANO, max_tags=0, **settings).positive == text


@pytest.mark.parametrize(
    ("settings", "text", "note"),
    [
        ({"after": "(hat:1.2), bow, (hat:0.8)"}, "Sakuragi Mano, bow, (hat:0.8)",
         "twice: 'hat' is typed with the weights 1.2 and 0.8; the last counts"),
        ({"before": "(Hat:1.2)", "after": "hat"}, "Sakuragi Mano, hat",
         "twice: 'hat' is typed with the weights 1.2 and 1; the last counts"),
        ({"previous": "(hat:1.1)", "before": "(hat:1.3)", "after": "(HAT:1.4)"}, "Sakuragi Mano, (HAT:1.4)",
         "twice: 'HAT' is typed with the weights 1.1, 1.3 and 1.4; the last counts"),
        ({"after": "(hat:1.2), (hat:1.20)"}, "Sakuragi Mano, (hat:1.2)", None),
        ({"after": "hat, Hat"}, "Sakuragi Mano, hat", None),
        ({"before": "(Sakuragi Mano:1.3)"}, "(Sakuragi Mano:1.3)", None),
        ({"after": "(mano sakuragi:1.3), hat"}, "(Sakuragi Mano:1.3), hat", None),
        ({"after": "(Mano:1.3), hat"}, "(Sakuragi Mano:1.3), hat", None),
        ({"previous": "Mano, 1girl", "before": "櫻木真乃"}, "Mano, 2girls, Sakuragi Mano", None),
        ({"after": "(sakuragi_mano, hat:1.3)"}, "(Sakuragi Mano:1.3), (hat:1.3)", None),
        ({"after": "Sakuragi Mano", "weight": 1.2}, "(Sakuragi Mano:1.2)", None),
        ({"after": "(Sakuragi Mano:1.3)", "weight": 1.2}, "(Sakuragi Mano:1.3)",
         "twice: 'Sakuragi Mano' is typed with the weights 1.2 and 1.3; the last counts"),
        ({"previous": "(Sakuragi Mano:1.3), hat"}, "(Sakuragi Mano:1.3), hat", None),
        ({"previous": "(Sakuragi Mano:1.3), hat", "weight": 1.1}, "hat, (Sakuragi Mano:1.1)",
         "twice: 'Sakuragi Mano' is typed with the weights 1.3 and 1.1; the last counts"),
    ],
)  # fmt: skip
def test_of_two_weights_the_last_counts_and_that_is_said(settings, text, note):
    prompt = build(CAST, MANO, max_tags=0, **settings)
    assert (prompt.positive, prompt.notes) == (text, (note,) if note else ())


def test_a_lora_in_the_text_is_noted_once():
    first = build(CAST, MANO, max_tags=0, before="<lora:my style (v1.2):0.8>, <lora:my style (v1.2):0.8>")
    assert first.notes == (
        "lora: '<lora:my style (v1.2):0.8>' does nothing in ComfyUI; load that file with a node, such as Load LoHa",)
    assert build(CAST, MANO, previous=first.positive).notes == ()
