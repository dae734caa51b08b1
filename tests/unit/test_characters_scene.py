"""A scene: the language for places, the masks, the prompts of the regions, the plan as a picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shinymas_loha.characters import DEFAULT_CAST, EMBEDDED, CastError, Character, Found, PromptError, read
from shinymas_loha.characters.fonts import cjk_font, font
from shinymas_loha.characters.scene import MAX_PEOPLE, Box, Region, draw, plan, region_masks
from shinymas_loha.characters.scene.boxes import place
from shinymas_loha.characters.scene.lines import read_lines

CAST = read(EMBEDDED, DEFAULT_CAST)
NAMES = [character.name for character in CAST.characters]


def scene(people, shared="", **options):
    return plan(people, shared, lambda name: Found(CAST, CAST.find(name)), **options)


def texts(people, shared="", **options):
    return [region.text for region in scene(people, shared, **options).people]


def boxes_of(texts):
    return place(dict(enumerate(texts, 1)))


def placed(*boxes):
    return [str(box) for box in boxes_of(boxes)]


@pytest.mark.parametrize(("boxes", "expected"), [
    (("left", "right"), ["0-50, 0-100", "50-100, 0-100"]),
    (("left", "middle", "right"), ["0-33.3333, 0-100", "33.3333-66.6667, 0-100", "66.6667-100, 0-100"]),
    (("top left", "right bottom"), ["0-50, 0-50", "50-100, 50-100"]),
    (("1/3", "bottom 3/3"), ["0-33.3333, 0-100", "66.6667-100, 50-100"]),
    (("0-45, 10-100", "45 % – 100 %"), ["0-45, 10-100", "45-100, 0-100"]),
    (("Whole",), ["0-100, 0-100"]),
    (("top", "centre"), ["0-100, 0-50", "33.3333-66.6667, 0-100"]),
    # Without a box: shares of what is free, from left to right.
    (("",), ["0-100, 0-100"]),
    (("", "", "", ""), ["0-25, 0-100", "25-50, 0-100", "50-75, 0-100", "75-100, 0-100"]),
    (("left", ""), ["0-50, 0-100", "50-100, 0-100"]),
    (("", "middle", ""), ["0-33.3333, 0-100", "33.3333-66.6667, 0-100", "66.6667-100, 0-100"]),
    (("top", "", ""), ["0-100, 0-50", "0-50, 50-100", "50-100, 50-100"]),
])
def test_boxes(boxes, expected):
    assert placed(*boxes) == expected


@pytest.mark.parametrize(("people", "message"), [
    ("", "people: nobody is in the scene; write a line for each, such as 'Kazano Hiori | left', or in full "
         "name | box | tags | weight"),
    ("  \n\t\n", "people: nobody is in the scene"),
    ("Hiori | smile", "line 1: 'smile' is no box; write left, right, middle, top, bottom, top left, 1/3, or per cents "
                      "such as '0-45' or '0-45, 10-100'. Tags stand behind it: name | box | tags | weight"),
    ("Hiori | left right", "line 1: 'left right' is no box"),
    ("Hiori | 0-120", "line 1: the box '0-120' reaches beyond the picture; per cents go from 0 to 100"),
    ("Hiori | 0-50, 40-101", "line 1: the box '0-50, 40-101' reaches beyond the picture"),
    ("Mano\nHiori | 50-20", "line 2: '50-20' is too small a box: from 50 to 20; leave at least 5%, the smaller number"),
    ("Hiori | 20-21", "line 1: '20-21' is too small a box"),
    ("Hiori | 4/3", "line 1: '4/3' is no share of the picture; 1/3 is the first of three columns, and there are"),
    ("Hiori | 1/900", "line 1: '1/900' is no share of the picture"),
    ("Hiori | whole\nMano", "line 2: the other boxes leave no room in the picture; give this line a box"),
    ("Hiori | left | | loud", "line 1: the weight 'loud' is no number from 0 to 3; 1 leaves the name as it is"),
    ("Hiori | left | | nan", "line 1: the weight 'nan' is no number"),
    ("Hiori | left | | 3.01", "line 1: the weight '3.01' is no number from 0 to 3"),
    ("Hiori | left | smile | 1 | 2", "line 1: 5 fields between |, at most 4: name | box | tags | weight"),
    ("Hiori\n| left", "line 2: no name; a line is name | box | tags | weight"),
    ("\n".join(NAMES[:10]), "people: 10 lines; a scene holds at most 6 people. Draw the others in another picture"),
    ("Hiori\n\nMano\nKazano Hiori | left", "line 4: Kazano Hiori stands in line 1 already; each person has one line"),
    ("Hiori\nSakuragi Manno", "line 2: 'Sakuragi Manno' is not in the cast 'shinymas'; did you mean Sakuragi Mano"),
    ("A\u202eB | left", "line 1: 'A\\u202eB' is not in the cast"),
    ("x" * 20_001, "people: 20001 characters; a scene has at most 20000"),
])
def test_what_is_wrong_with_a_line_is_said(people, message):
    with pytest.raises(CastError) as caught:
        scene(people)
    assert message in str(caught.value)


def test_whom_the_version_does_not_know_is_said():
    with pytest.raises(PromptError, match=r"^line 2: v1\.0 does not know Ikaruga Luca"):
        scene("Hiori\nIkaruga Luca", version="v1.0")


def test_count_tags_stand_in_the_shared_text_and_one_girl_with_each():
    assert texts("Hiori | left\nMano | right | school uniform, solo, 2girls | 1.1", "best quality, solo, outdoors") == [
        "best quality, outdoors, 2girls, 1girl, Kazano Hiori, black hair, long hair, ponytail, purple eyes, mole, "
        "mole under mouth",
        "best quality, outdoors, 2girls, 1girl, (Sakuragi Mano:1.1), brown hair, medium hair, brown eyes, "
        "school uniform",
    ]


def test_one_person_alone_is_no_crowd():
    (text,) = texts("Hiori", "outdoors, solo, 1girl")
    assert text == ("outdoors, 1girl, Kazano Hiori, black hair, long hair, ponytail, purple eyes, mole, "
                    "mole under mouth")


@pytest.mark.parametrize(("people", "shared", "count"), [
    (2, "", "2girls"), (2, "3girls", "3girls"), (5, "2girls", "5girls"), (6, "", "multiple girls"),
])
def test_the_count_is_that_of_the_people_or_of_who_typed_more(people, shared, count):
    assert scene("\n".join(NAMES[:people]), shared).rest.text == count


def test_other_characters_in_the_tags_add_no_count_to_a_region():
    first = texts("Hiori | left | Sakuragi Mano's hat, Sakuragi Mano\nMano")[0]
    assert "2girls, 1girl, Kazano Hiori" in first and first.count("girl") == 2


def test_the_trigger_is_the_versions():
    assert "Hiori Kazano" in texts("Hiori\nMano", version="v1.0")[0]


def test_what_is_withheld_is_nowhere_and_noted():
    planned = scene("Hiori | | large breasts\nMano", "breasts, sky")
    assert "breasts" not in "".join(region.text for region in (*planned.people, planned.rest))
    assert planned.notes == ("withheld: 'breasts' left out", "withheld: 'large breasts' left out")


def test_overlapping_boxes_and_few_cards_are_noted():
    assert scene("Hiori | left\nIkaruga Luca | 40-100").notes == (
        "note: the boxes of Kazano Hiori and Ikaruga Luca overlap; both are drawn there",
        "warning: Ikaruga Luca was learnt from 4 cards only; expect a poor likeness",
    )


def test_lines_between_brackets_are_the_prompts():
    (line,) = read_lines("Hiori｜left｜[a|b], (c|d:1.2)｜.5")
    assert (line.name, line.tags, line.weight) == ("Hiori", "[a|b], (c|d:1.2)", 0.5)


def test_the_syntax_of_other_programs_passes_to_the_letter():
    planned = scene("Hiori | left | [a|b] BREAK <lora:my style (v1.2):0.8>, 2girls\nMano", "COUPLE(0 0.5) sky, {x|y}")
    text = planned.people[0].text
    assert text.startswith("COUPLE(0 0.5) sky, {x|y}, 2girls, 1girl, Kazano Hiori, ")
    assert text.endswith("[a|b] BREAK <lora:my style (v1.2):0.8>")
    assert [note for note in planned.notes if "my style (v1.2):0.8>' does nothing in ComfyUI" in note]


PERCENT = st.integers(0, 100).flatmap(lambda low: st.tuples(st.just(low), st.integers(low, 100))).filter(
    lambda span: span[1] - span[0] >= 5)
BOX = st.one_of(
    st.just(""), st.sampled_from(["left", "right", "middle", "top", "bottom right", "1/3", "2/4 top", "whole"]),
    st.builds(lambda x, y: f"{x[0]}-{x[1]}, {y[0]}-{y[1]}", PERCENT, PERCENT))


@settings(max_examples=150, deadline=None)
@given(st.lists(BOX, min_size=1, max_size=MAX_PEOPLE), st.integers(8, 90), st.integers(8, 90),
       st.sampled_from([0.0, 3.0, 12.5, 50.0, 100.0]))
def test_masks_sum_to_one_at_every_pixel(boxes, width, height, feather):
    try:
        placed = boxes_of(boxes)
    except PromptError:
        return
    masks = region_masks(placed, width, height, feather)
    assert masks.dtype == np.float32 and masks.shape[1:] == (height, width)
    assert masks.min() >= 0 and masks.max() <= 1
    np.testing.assert_allclose(masks.sum(0, dtype=np.float64), 1.0, atol=1e-6)
    assert len(placed) <= len(masks) <= len(placed) + 1


@settings(max_examples=150, deadline=None)
@given(st.lists(BOX, min_size=1, max_size=MAX_PEOPLE))
def test_who_has_no_box_overlaps_nobody(boxes):
    try:
        placed = boxes_of(boxes)
    except PromptError:
        return
    for number, box in enumerate(placed):
        assert 0 <= box.left < box.right <= 1 and 0 <= box.top < box.bottom <= 1
        if not boxes[number]:
            assert not any(box.overlaps(other) for other in (*placed[:number], *placed[number + 1:]))


@pytest.mark.parametrize("words", [("left", "right"), ("left", "middle", "right"), ("top", "bottom"),
                                   ("top left", "top right", "bottom left", "bottom right"), ("middle", "right")])
def test_words_of_one_kind_never_overlap(words):
    boxes = boxes_of(words)
    assert not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[at + 1:])


def test_hard_masks_are_whole_pixels_and_boxes_that_fill_the_picture_leave_no_rest():
    masks = region_masks(boxes_of(["left", "right"]), 64, 32)
    assert masks.shape == (2, 32, 64)
    assert np.array_equal(masks[0, :, :32], np.ones((32, 32))) and not masks[0, :, 32:].any()
    feathered = region_masks(boxes_of(["left", "right"]), 64, 32, 25)
    assert len(feathered) == 2
    assert feathered[0, 0, 0] == 1 and feathered[0, 0, 31] == pytest.approx(0.5625)
    assert len(region_masks(boxes_of(["left"]), 64, 32)) == 2


def test_boxes_that_overlap_share():
    masks = region_masks(boxes_of(["0-60", "40-100"]), 100, 10)
    assert masks[:, 0, 50].tolist() == [0.5, 0.5] and masks[:, 0, 20].tolist() == [1, 0]


@pytest.mark.parametrize("size", [(512, 768), (64, 80), (1000, 41)])
def test_the_plan_has_the_pictures_shape_and_the_idols_colours(size):
    picture = draw(scene("Hiori | left\nMano | 50-90").people, *size, 10)
    assert picture.dtype == np.uint8 and max(picture.shape[:2]) == min(768, max(size))
    assert picture.shape[0] / picture.shape[1] == pytest.approx(size[1] / size[0], rel=0.05)
    at = picture.shape[0] * 3 // 4, picture.shape[1] // 4
    assert tuple(picture[at]) == (0x14, 0x43, 0x84)


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (16, 4096)])
def test_the_plan_of_the_smallest_pictures(size):
    assert draw(scene("\n".join(NAMES[:6])).people, *size, 50).shape[2] == 3


def test_a_name_in_kanji_is_drawn_in_its_own_script_where_a_font_has_it():
    def ink(name):
        region = Region("", Character(name, ()), Box(0.0, 0.0, 1.0, 1.0))
        return draw([region], 400, 100)

    if cjk_font() is None:
        pytest.skip("no font with kanji on this machine")
    assert not np.array_equal(ink("風野灯織"), ink("櫻木真乃"))
    assert font(12, "風").path == cjk_font() and font(12, "K").path != cjk_font()
