"""Caption files of all kinds, and captions varied."""

import random

import pytest
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.data import CaptionError, CaptionOptions, read_caption, varied
from shinymas_loha.loha.training.data.captions import Layout, tags_of, understood

TAGS = "Kazano Hiori, black hair, mole, smile, 1girl"


def _vary(options: CaptionOptions, seed: int = 0, caption: str = TAGS) -> str:
    return varied(caption, options, random.Random(seed))


@pytest.mark.parametrize(("raw", "expected"), [
    (b"a, b", "a, b"),
    (b"\xef\xbb\xbfa, b\r\n", "a, b"),
    ("風野灯織, 黒髪".encode(), "風野灯織, 黒髪"),
    (b"", ""),
    (b" \n\n", ""),
    (b"a,\n  b", "a, b"),
])
def test_captions_that_are_read(tmp_path, raw, expected):
    path = tmp_path / "a.txt"
    path.write_bytes(raw)
    assert read_caption(path) == expected


@pytest.mark.parametrize(("text", "layout", "expected"), [
    ("black hair\nsmile\n1girl\n", Layout.LIST, "black hair, smile, 1girl"),
    ("1girl\r\nblack_hair\r\nidolmaster_(shiny_colors)\r\n:d\r\n", Layout.LIST,
     "1girl, black_hair, idolmaster_(shiny_colors), :d"),
    ("character:kazano hiori\nseries:the idolm@ster shiny colors\nblack hair\nmole", Layout.LIST,
     "character:kazano hiori, series:the idolm@ster shiny colors, black hair, mole"),
    ("風野灯織\nシャイニーカラーズ\n黒髪", Layout.LIST, "風野灯織, シャイニーカラーズ, 黒髪"),
    ("1girl,\nblack hair,\n,\nsmile,\n", Layout.LIST, "1girl, black hair, smile"),
    ("Kazano Hiori, black hair, mole,\nsmile, 1girl", Layout.LIST, "Kazano Hiori, black hair, mole, smile, 1girl"),
    ("\n".join([*"abcdefghi", "oh, a comma"]), Layout.LIST, "a, b, c, d, e, f, g, h, i, oh, a comma"),
    ("love live!\nyahari_ore_no_seishun_lovecome_wa_machigatteiru.\nsmile", Layout.LIST,
     "love live!, yahari_ore_no_seishun_lovecome_wa_machigatteiru., smile"),
    ("Kazano Hiori, black hair\nKazano Hiori, smile", Layout.FIRST, "Kazano Hiori, black hair"),
    ("\n  A girl  sits on a bench.\nShe looks at the viewer.", Layout.FIRST, "A girl sits on a bench."),
    ("A girl\nA girl in a park", Layout.FIRST, "A girl"),
    ("彼女は笑っている。\n背景は青空。", Layout.FIRST, "彼女は笑っている。"),
    ("1girl, solo\nA girl with black hair stands in front of a window.", Layout.FIRST, "1girl, solo"),
    ("girl smiling softly at someone\ngirl standing under cherry trees", Layout.FIRST,
     "girl smiling softly at someone"),
    ("1girl black_hair looking_at_viewer smile", Layout.SPACED, "1girl, black_hair, looking_at_viewer, smile"),
    ("a photo of my_style cat", Layout.LINE, "a photo of my_style cat"),
    ("black_hair, looking_at_viewer long_hair brown_eyes", Layout.LINE,
     "black_hair, looking_at_viewer long_hair brown_eyes"),
    ("Kazano Hiori,", Layout.LINE, "Kazano Hiori,"),
    ("\n \n", Layout.LINE, ""),
])
def test_how_the_lines_of_a_file_are_understood(text, layout, expected):
    assert understood(text) == (expected, layout)


def test_ten_thousand_tags(tmp_path):
    path = tmp_path / "a.txt"
    text = ", ".join(f"tag {number}" for number in range(10_000))
    path.write_text(text, encoding="utf-8")
    assert read_caption(path) == text


@pytest.mark.parametrize(("raw", "guess"), [
    ("風野灯織, 黒髪の女の子".encode("cp932"), "Shift-JIS"),
    ("風野灯織, black hair".encode("utf-16"), "UTF-16"),
    ("a, b".encode("utf-16-le"), "UTF-16"),
    ("樱木真乃, 棕色头发".encode("gb18030"), "GB 18030|Shift-JIS"),
    ("café, naïve".encode("latin-1"), "Latin-1|Shift-JIS|GB"),
])
def test_other_encodings_are_named_with_the_file(tmp_path, raw, guess):
    path = tmp_path / "hiori.txt"
    path.write_bytes(raw)
    with pytest.raises(CaptionError, match=rf"hiori\.txt: .*looks like ({guess}).*: save it as UTF-8"):
        read_caption(path)


def test_a_caption_of_megabytes_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a" * (1 << 20) + b"a")
    with pytest.raises(CaptionError, match="over 1 MB"):
        read_caption(path)


def test_without_options_a_caption_stays_to_the_letter():
    odd = "a,b ,, c  "
    assert _vary(CaptionOptions(), caption=odd) == odd


def test_shuffling_keeps_the_first_and_loses_none():
    seen = {_vary(CaptionOptions(shuffle=True, keep_tokens=2), seed) for seed in range(40)}
    assert len(seen) == 6, "three free tags have six orders"
    for caption in seen:
        tags = caption.split(", ")
        assert tags[:2] == ["Kazano Hiori", "black hair"] and sorted(tags) == sorted(TAGS.split(", "))


def test_dropping_has_the_stated_chances_and_spares_the_first():
    options = CaptionOptions(tag_dropout=0.25, keep_tokens=1)
    captions = [_vary(options, seed) for seed in range(2000)]
    assert all(caption.startswith("Kazano Hiori") for caption in captions)
    assert sum("smile" in caption for caption in captions) / 2000 == pytest.approx(0.75, abs=0.04)
    options = CaptionOptions(caption_dropout=0.1, prefix="art")
    assert sum(_vary(options, seed) == "" for seed in range(2000)) / 2000 == pytest.approx(0.1, abs=0.03)
    assert _vary(CaptionOptions(tag_dropout=1.0)) == ""


def test_prefix():
    assert _vary(CaptionOptions(prefix="shiny,")) == f"shiny, {TAGS}"
    assert _vary(CaptionOptions(prefix="shiny"), caption="") == "shiny"


@pytest.mark.parametrize("values", [
    {"caption_dropout": 1.1}, {"tag_dropout": -0.1}, {"keep_tokens": -1}, {"extension": "txt"},
    {"caption_dropout": float("nan")}, {"shuffle": 1},
])
def test_options_out_of_range(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        CaptionOptions(**values)


def _words(count):
    return ", ".join(f"t{number}" for number in range(count))


def test_the_prefix_is_counted_into_the_tags_that_stay():
    options = CaptionOptions(prefix="shiny,", suffix=", best", keep_tokens=1, shuffle=True)
    seen = {_vary(options, seed, "a, b") for seed in range(60)}
    assert seen == {f"shiny, {rest}" for rest in (
        "a, b, best", "a, best, b", "b, a, best", "b, best, a", "best, a, b", "best, b, a")}
    assert _vary(CaptionOptions(suffix=", best"), caption="a, b") == "a, b , best"


def test_what_stands_before_and_behind_the_marks_stays():
    options = CaptionOptions(keep_tokens_separator="|||", keep_tokens=3, shuffle=True, tag_dropout=0.5)
    seen = {_vary(options, seed, "name, series ||| a, b ||| best, end") for seed in range(80)}
    assert seen == {f"name, series{free}, best, end" for free in ("", ", a", ", b", ", a, b", ", b, a")}
    assert {_vary(options, seed, "x|||a") for seed in range(20)} == {"x", "x, a"}
    # Without the mark the first n stay; without shuffling or dropping the mark is text, as in kohya's scripts.
    assert _vary(options, caption="a, b, c") == "a, b, c"
    assert _vary(CaptionOptions(keep_tokens_separator="|||"), caption="a ||| b") == "a ||| b"


def test_the_secondary_mark_keeps_tags_together():
    options = CaptionOptions(secondary_separator=";;;", shuffle=True)
    assert {_vary(options, seed, "a;;;b, c") for seed in range(20)} == {"a,b, c", "c, a,b"}
    assert _vary(CaptionOptions(secondary_separator=";;;"), caption="a;;;b") == "a,b"


@pytest.mark.parametrize(("caption", "seen"), [
    ("a {red|blue} b", {"a red b", "a blue b"}),
    ("{a|b}{c|d}", {"ac", "ad", "bc", "bd"}),
    ("{alone} {{a|b}} }{", {"alone {a|b} }{"}),
    ("{|x}", {"", "x"}),
    ("{a|b}}", {"{a|b}"}),  # a doubled brace goes before, as in kohya's scripts
])
def test_a_wildcard_is_one_of_its_words(caption, seen):
    assert {_vary(CaptionOptions(wildcards=True), seed, caption) for seed in range(60)} == seen
    assert _vary(CaptionOptions(), caption=caption) == caption


def test_wildcards_are_even_and_choose_among_lines():
    options = CaptionOptions(wildcards=True, prefix="{p}")
    found = [_vary(options, seed, "one\n{two|three}") for seed in range(4000)]
    for text, chance in (("p one", 0.5), ("p two", 0.25), ("p three", 0.25)):
        assert found.count(text) / 4000 == pytest.approx(chance, abs=0.04)
    assert understood("a\n\n b  c,\nd", has_variants=True).text == "a\nb c,\nd"
    assert tags_of("a, b\nc") == ["a", "b", "c"]


@pytest.mark.parametrize(("length", "total", "step", "tags"), [
    (10, 0, 0, 2), (10, 0, 4, 5), (10, 0, 9, 9), (10, 0, 10, 10), (0.5, 20, 4, 5), (0.5, 20, 10, 10),
    (0.001, 20, 0, 10)])
def test_tags_are_warmed_up(length, total, step, tags):
    """⌊step · (tags − min) / length⌋ + min of those that may move, before they are shuffled."""
    options = CaptionOptions(token_warmup_step=float(length), token_warmup_min=2, keep_tokens=1)
    made = varied(f"name, {_words(10)}", options, random.Random(0), step=step, total_steps=total)
    assert made == ", ".join(["name", *_words(10).split(", ")[:tags]])


def test_fewer_tags_than_the_warmup_begins_with():
    options = CaptionOptions(token_warmup_step=10.0, token_warmup_min=5)
    assert [varied("a, b", options, random.Random(0), step=step) for step in (0, 9, 10)] == ["a, b"] * 3
    assert varied("", options, random.Random(0), step=9) == ""


def test_every_nth_epoch_is_without_captions():
    options = CaptionOptions(dropout_every_n_epochs=3, prefix="p")
    assert [varied("a", options, random.Random(0), epoch=epoch) for epoch in range(6)] == [
        "p a", "p a", "", "p a", "p a", ""]
