"""Caption files of all kinds, and captions varied."""

import random

import pytest
from shinymas_loha.loha.errors import SettingsError
from shinymas_loha.loha.training.data import CaptionError, CaptionOptions, read_caption, varied
from shinymas_loha.loha.training.data.captions import Layout, understood

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
