"""Typed prompt text taken apart as ComfyUI reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shinymas_loha.characters.tags import plain, split, tag_key
from shinymas_loha.characters.withheld import holds_any


@pytest.mark.parametrize(
    ("typed", "tags"),
    [
        ("", []),
        (" , ,\n", []),
        ("a,  b c ,d\ne", ["a", "b c", "d", "e"]),
        ("(smile:1.2)", ["(smile:1.2)"]),
        ("(smile)", ["(smile:1.1)"]),
        ("((smile))", ["(smile:1.21)"]),
        ("(a, b:1.3), c", ["(a:1.3)", "(b:1.3)", "c"]),
        ("(a (b:0.5) c:1.2)", ["(a :1.2)(b:0.5)( c:1.2)"]),
        ("(a:1)", ["a"]),
        ("(a:1.2\n)", ["(a:1.2)"]),
        ("blue (sky:1.2) day", ["blue (sky:1.2) day"]),
        ("a \\(b\\)", ["a \\(b\\)"]),
        ("(a \\(b\\):1.2)", ["(a \\(b\\):1.2)"]),
        ("a\\ ,b\\,c", ["a\\", "b\\", "c"]),  # a backslash escapes brackets only
        (":)", [":\\)"]),
        ("(a", ["\\(a"]),
        ("(:1.2)", []),
        ("embedding:my_words", ["embedding:my_words"]),
        ("(a:1e999)", ["(a:1e999:1.1)"]),
    ],
)
def test_split(typed, tags):
    assert [str(tag) for tag in split(typed)] == tags


@given(st.text("ab(),:.12\\ \n_", max_size=40))
def test_split_once_is_split_for_good(typed):
    once = ", ".join(map(str, split(typed)))
    assert [tag.key for tag in split(once)] == [tag.key for tag in split(typed)]


def test_deep_nesting_is_linear_and_does_not_recurse():
    assert [tag.text for tag in split("(" * 50_000 + "a:1.5" + ")" * 50_000)] == ["a"]


def test_data_becomes_literal_text():
    assert str(plain("moon_(phase)")) == "moon \\(phase\\)"
    assert str(plain("moon \\(phase\\)", 1.15)) == "(moon \\(phase\\):1.15)"


def test_one_tag_however_spelled():
    assert {tag_key(text) for text in ("Hair_Bun", " hair  bun", "ＨＡＩＲ bun", "hair\tbun")} == {"hair bun"}


@pytest.mark.parametrize(
    "text", ["breasts", "Large_Breasts", "b r e a s t s", "brea\u200bsts", "ｂｒｅａｓｔｓ", "bréasts", "huge-breasts"]
)
def test_withheld_however_spelled(text):
    assert holds_any(text, ("breasts",))
    assert not holds_any("breast pocket", ("breasts",))


def test_a_withheld_tag_without_letters_withholds_itself_alone():
    assert holds_any("^_^", ("^_^",))
    assert not holds_any("smile", ("^_^",))
