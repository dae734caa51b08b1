"""Sheets: who is drawn, what stands where, what is kept, and the picture itself."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image
from shinymas_loha.characters import EMBEDDED, CastError, PromptError, read, roster
from shinymas_loha.characters.sheet import Kept, Label, draw, parse_label, plan

CAST = read(EMBEDDED, "shinymas")


def test_everyone_stands_by_unit():
    everyone = roster.choose(CAST, "v2.1")
    assert len(everyone) == len(CAST.characters) == 26
    units = [who.unit for who in everyone]
    assert len([one for one, before in zip(units, [None, *units], strict=False) if one != before]) == len(set(units))


@pytest.mark.parametrize(("asked", "names"), [
    ({"unit": "SHHis"}, ["Nanakusa Nichika", "Aketa Mikoto"]),
    ({"unit": "favourites", "favourites": {"Kazano Hiori", "Nobody"}}, ["Kazano Hiori"]),
    ({"names": "mikoto\nKazano Hiori, 樋口円香\nMikoto"}, ["Aketa Mikoto", "Kazano Hiori", "Higuchi Madoka"]),
])
def test_who_is_asked_for(asked, names):
    assert [who.name for who in roster.choose(CAST, "v2.1", **asked)] == names


def test_few_cards_are_left_out_when_asked():
    few = {who.name for who in CAST.characters if who.cards < 20}
    assert few and not few & {who.name for who in roster.choose(CAST, "v2.1", minimum_cards=20)}


@pytest.mark.parametrize(("asked", "message"), [
    ({"names": "Hiory"}, r"'Hiory' is not in the cast 'shinymas'; did you mean Kazano Hiori"),
    ({"names": "Luca"}, r"v1.0 does not know Ikaruga Luca: .* Take her from the list"),
    ({"unit": "favourites"}, "no favourite is in the cast 'shinymas'; mark some in the character picker"),
    ({"minimum_cards": 1000}, "nobody is left: 'every unit' of the cast 'shinymas' with at least 1000 cards"),
])
def test_who_cannot_be_drawn(asked, message):
    with pytest.raises(CastError, match=message):
        roster.choose(CAST, "v1.0", **asked)


def test_strengths():
    assert roster.strengths("none, 0.6,0.6\n1") == (None, 0.6, 1.0)
    assert roster.strengths(" 0 ") == (0.0,)
    assert roster.strengths("") == ()
    for text in ("high", "nan", "1e999", "0.6 0.8"):
        with pytest.raises(PromptError, match="write for example: none, 0.6, 0.8, 1"):
            roster.strengths(text)


def test_files_by_strength():
    files = ["run-000010.safetensors", "run-000002.safetensors", "run.safetensors", "sub\\run-9.safetensors", "b"]
    assert roster.matching(files, "run-*") == ("run-000002.safetensors", "run-000010.safetensors")
    assert roster.matching(files, "sub/*, run.safetensors\nrun*")[:2] == ("sub\\run-9.safetensors", "run.safetensors")
    with pytest.raises(PromptError, match="lora_files: 'walk' fits no file in models/loras"):
        roster.matching(files, "run, walk")
    mano = CAST.find("Mano")
    assert roster.picture_label(mano, "romaji", "0.8", "run-2.safetensors", False) == "run-2 | 0.8 | "
    assert roster.picture_label(mano, "romaji", "0.8", "run-2.safetensors", True) == (
        "Sakuragi Mano | run-2, 0.8 | illumination STARS")


def test_labels():
    luca = CAST.find("Luca")
    assert roster.label(luca) == f"Ikaruga Luca ({luca.cards} cards)"
    assert parse_label("a | b | c | d") == Label("a", "b", "c | d")
    assert parse_label("") == Label("")


def test_no_two_pictures_share_a_place():
    chance = random.Random(3)
    for _ in range(300):
        labels = [Label(f"c{chance.randrange(9)}", chance.choice(("", "r1", "r2")) if chance.random() < 0.5 else "",
                        f"g{chance.randrange(4)}") for _ in range(chance.randint(1, 30))]
        columns = chance.choice((0, 0, 1, 3, 7))
        found = plan(labels, columns)
        places = [(cell.line, cell.column) for cell in found.cells]
        assert len(set(places)) == len(places) == len(set(labels))
        assert all(line < found.lines and column < found.columns for line, column in places)
        assert not columns or found.columns <= columns
        # The last picture of a label is the one that is shown.
        assert {labels[cell.index]: cell.index for cell in found.cells} == {
            label: number for number, label in enumerate(labels)}
        for line, first, count, text in found.heads:
            below = [labels[cell.index].group for cell in found.cells
                     if cell.line == line and first <= cell.column < first + count]
            assert set(below) == {text}


def test_strengths_by_idols():
    labels = [Label(name, row) for row in ("none", "0.8") for name in ("Mano", "Hiori", "Meguru")]
    found = plan(labels)
    assert (found.columns, found.lines, found.sides) == (3, 2, ((0, "none"), (1, "0.8")))
    assert [(cell.line, cell.column) for cell in found.cells] == [(n // 3, n % 3) for n in range(6)]
    assert plan(labels, 2).sides == ((0, "none"), (1, "0.8"), (2, "none"), (3, "0.8"))


def _solid(number, size=(64, 96)):
    return np.full((*size, 3), number, dtype=np.uint8)


def test_each_picture_is_on_the_sheet_in_its_own_shape():
    shapes = [(64, 96), (96, 64), (8, 8), (200, 100)]
    asked = []

    def picture(index):
        asked.append(index)
        return _solid(40 + 50 * index, shapes[index])

    labels = [Label("a"), Label("b"), Label("長い名前" * 30), Label("x" * 300)]
    sheet = draw(plan(labels, 2), picture, (96, 64), "v2.1, strength 0.8")
    assert asked == [0, 1, 2, 3]
    assert sheet.dtype == np.float32 and sheet.min() >= 0 and sheet.max() <= 1
    for index, (height, width) in enumerate(shapes):
        scale = min(96 / width, 64 / height)
        area = round(width * scale) * round(height * scale)
        assert (np.abs(sheet - np.float32(40 + 50 * index) / 255) < 1e-6).all(axis=2).sum() >= area


def test_a_sheet_that_nobody_could_open_is_refused():
    labels = [Label(str(number)) for number in range(100)]
    with pytest.raises(ValueError, match="at most 16384 a side. Lower cell_size"):
        draw(plan(labels, 100), lambda index: _solid(index), (2048, 2048))


def test_kept_pictures_make_the_sheet_grow(tmp_path):
    def write(path, data):
        path.write_bytes(data)

    first = Kept(tmp_path / "sheet", "t")
    first.put("Mano | | a", _solid(10), write)
    first.put("櫻木真乃", _solid(20), write)
    (tmp_path / "sheet" / "0009.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "sheet" / "0010.png")
    second = Kept(tmp_path / "sheet", "t")
    assert list(second.paths) == ["Mano | | a", "櫻木真乃"]
    second.put("Mano | | a", _solid(30), write)
    second.put("Hiori", _solid(40), write)
    third = Kept(tmp_path / "sheet", "t")
    assert [int(third.read(label)[0, 0, 0]) for label in third.paths] == [30, 20, 40]
    assert list(third.paths)[-1] == "Hiori" and third.others == 0
    other = Kept(tmp_path / "sheet", "another strength")
    assert (other.paths, other.others) == ({}, 3)


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CastError, match="keep_in: sheet cannot be made: Not a directory"):
        Kept(tmp_path / "file" / "sheet", "title").put("Mano", _solid(10), lambda path, data: None)
