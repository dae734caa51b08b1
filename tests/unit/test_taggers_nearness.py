"""The second measure from pictures to table: who counts, where references are found, and what is noted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shinymas_loha.characters import CastError
from shinymas_loha.characters.catalogue import parse
from shinymas_loha.loha.errors import FileError
from shinymas_loha.taggers.identity import IdentityModel
from shinymas_loha.taggers.ledger import EmbeddingLedger
from shinymas_loha.taggers.nearness import Asked, Measure
from shinymas_loha.taggers.references import find_references
from small_identity import write_identity

CAST = parse(b"""
version: 1
characters:
  - {name: Red One, tags: [red sky], identity: [red sky], aliases: [Scarlet], unit: Colours}
  - {name: Green One, tags: [grass], identity: [grass], unit: Colours}
  - {name: Blue One, tags: [sea], identity: [sea]}
""", "test.yaml", "test")
RED, GREEN, BLUE, BROWN = (255, 0, 0), (0, 255, 0), (0, 0, 255), (153, 204, 0)


def picture(colour, size=8):
    return Image.new("RGB", (size, size), colour)


def draw(path, colour, size=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(colour, size).save(path)
    return path


def tags_of(image):
    """A blue picture has two people."""
    return ("2girls",) if image.getpixel((0, 0))[2] > 99 else ("1girl", "solo")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return IdentityModel(write_identity(tmp_path_factory.mktemp("identity")))


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "references"
    draw(made / "10_Red One" / "a.png", RED)
    draw(made / "scarlet" / "b.WEBP", (200, 0, 0))
    draw(made / "Green One" / "deeper" / "c.jpg", GREEN)
    return made


def measured(model, folder, asked, references, *, known=lambda tag: True, progress=lambda: None):
    made = Measure(model, EmbeddingLedger(folder, model), tags_of, known, progress)
    return made.identity(CAST, asked, find_references(CAST, references))


ASKED = [Asked("Red One", 0.0, picture(BROWN)), Asked("Red One", 1.0, picture(RED)),
         Asked("Green One", 1.0, picture(BROWN)), Asked("Green One", 1.0, picture(BLUE)),
         Asked("Red One", 1.0, picture(RED), True), Asked("Blue One", 1.0, picture(RED))]


def test_from_pictures_to_a_table(tmp_path, model, root):
    found, notes = measured(model, tmp_path, ASKED, root)
    assert found.lines() == [
        "identity, references: 3 pictures of 2 characters, 1 to 2 of each",
        "identity, strength 0 (the base model alone): 0% of the pictures are nearest to a reference of who was asked "
        "for, more similar by -0.200 than to the best other",
        "identity, strength 1: 100% (+100%) of the pictures are nearest to a reference of who was asked for, more "
        "similar by +0.600 (+1.200) than to the best other",
        "identity, Red One: 0: 0% by -0.200, 1: 100% (+100%) by +1.000 (+1.200); at 1 then Green One",
        "identity, Green One: 1: 100% by +0.200; at 1 then Red One",
    ]
    assert notes == [
        "identity, pictures: 3 of 6 count; left out: 1 parts of scenes, 1 others that do not show one person by the "
        "tagger's tags, 1 whose character has no references that count",
        "identity, no references that count: Blue One",
    ]


def test_references_that_do_not_count_are_told(tmp_path, model, root):
    draw(root / "Green One" / "two.png", BLUE)
    draw(root / "Green One" / "same.png", RED, 8)
    (root / "Green One" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    draw(root / "Blue One" / "two.png", BLUE)
    draw(root / "nobody" / "x.png", RED)
    draw(root / "Colours" / "x.png", RED)  # two of the cast are of that unit
    draw(root / "loose.png", RED)
    found, notes = measured(model, tmp_path, ASKED, root)
    assert found.lines()[0] == "identity, references: 3 pictures of 2 characters, 1 to 2 of each"
    assert notes[1].startswith("identity, references left out: 2 that do not show one person by the tagger's tags, "
                               "1 that are among the pictures themselves, 1 that cannot be read")
    assert notes[2].startswith("identity, not read: Green One/broken.png: ")
    assert notes[3:] == ["identity, folders called by nobody's name in the cast: ., Colours, nobody",
                         "identity, no references that count: Blue One"]


@pytest.mark.parametrize(("asked", "change", "reason"), [
    (ASKED, lambda root: draw(root / "Green One" / "deeper" / "c.jpg", BLUE),
     "identity: left out, for fewer than two characters have reference pictures of one person: there is nobody to be "
     "taken for"),
    (ASKED[3:], lambda root: None, "identity: left out, for no picture counts"),
])
def test_where_nothing_can_be_compared(tmp_path, model, root, asked, change, reason):
    change(root)
    found, notes = measured(model, tmp_path, asked, root)
    assert found is None and notes[-1] == reason and notes[0].startswith("identity, pictures: ")


def test_a_tagger_that_does_not_count_people(tmp_path, model, root):
    found, notes = measured(model, tmp_path, ASKED, root, known=lambda tag: tag != "1girl" and tag == "smile")
    assert found is None and notes == [
        "identity: left out, for the tagger knows none of the tags solo, 1girl, 1boy, 1other, and only pictures of one "
        "person count"]


def test_a_run_that_was_cancelled_goes_on(tmp_path, model, root, monkeypatch):
    """Three references, then pictures; each that was seen is not looked at again."""
    embed, seen = model.embed, []
    monkeypatch.setattr(model, "embed", lambda image: (seen.append(image.size), embed(image))[1])

    class Cancelled(Exception):
        pass

    def cancel():
        if len(seen) == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        measured(model, tmp_path / "notes", ASKED, root, progress=cancel)
    found, _ = measured(model, tmp_path / "notes", ASKED, root)
    assert len(seen) == 5  # two of the three pictures are the same
    assert found.lines() == measured(model, tmp_path / "others", ASKED, root)[0].lines()


def test_notes_that_were_cut_or_are_none(tmp_path, model):
    ledger = EmbeddingLedger(tmp_path, model)
    ledger.put(picture(RED), model.embed(picture(RED)))
    ledger.put(picture(BROWN), model.embed(picture(BROWN)))
    (file,) = tmp_path.glob("*.jsonl")
    lines = file.read_text().strip().splitlines()
    keys = [json.loads(line)[0] for line in lines]
    assert EmbeddingLedger(tmp_path, model).get(picture(BROWN)) == pytest.approx([0.6, 0.8, 0])
    nan = np.full(3, np.nan, "<f4").tobytes().hex()
    for broken in (lines[1][:-9], json.dumps([keys[1], "!"]), json.dumps([keys[1], 5]), json.dumps([keys[1], "AAAA"]),
                   json.dumps([keys[1], nan]), json.dumps(keys[1]), "\0", json.dumps([keys[1], ["solo"]])):
        file.write_text(f"{lines[0]}\n{broken}\n")
        again = EmbeddingLedger(tmp_path, model)
        assert again.get(picture(BROWN)) is None and again.get(picture(RED)).tolist() == [1, 0, 0]


def test_another_model_has_notes_of_its_own(tmp_path, model):
    EmbeddingLedger(tmp_path, model).put(picture(RED), model.embed(picture(RED)))
    other = IdentityModel(write_identity(tmp_path / "other", plain=False))
    assert EmbeddingLedger(tmp_path, other).get(picture(RED)) is None


def test_embeddings_of_several_lengths(tmp_path, model, root, monkeypatch):
    sizes = iter(range(2, 99))
    monkeypatch.setattr(model, "embed", lambda image: np.ones(next(sizes), np.float32))
    with pytest.raises(FileError, match="model_feat.onnx: gives embeddings of 2 to 6 numbers; those of an identity"):
        measured(model, tmp_path, ASKED, root)


def test_who_has_many_references_has_twenty(root):
    for at in range(50):
        draw(root / "10_Red One" / f"{at:02}.png", RED)
    found = find_references(CAST, root).pictures
    assert [*found] == ["Red One", "Green One"] and len(found["Red One"]) == 20
    assert [path.name for path in found["Red One"][:4]] == ["00.png", "02.png", "05.png", "07.png"]
    assert found["Red One"][-1].name == "49.png"


@pytest.mark.parametrize(("names", "said"), [
    ([], "has pictures of nobody of the cast 'test'. Give a folder that holds a folder of pictures for each of two"),
    (["Red One"], "has pictures of Red One of the cast 'test'. Give"),
    (["1_Red One", "2_scarlet"], "has pictures of Red One of the cast"),
    (["Anna", "Berta"], "has pictures of nobody of the cast 'test'; called by nobody's name: Anna, Berta. Give"),
    ([f"x{at}" for at in range(9)], "called by nobody's name: x0, x1, x2, x3, x4 and 4 more. Give"),
])
def test_folders_of_fewer_than_two(tmp_path, names, said):
    for name in names:
        draw(tmp_path / name / "a.png", RED)
    with pytest.raises(FileError) as error:
        find_references(CAST, tmp_path)
    assert said in str(error.value), str(error.value)


def test_folders_that_are_none(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file", Path("\0"), Path("x" * 5000)):
        with pytest.raises((FileError, CastError), match="references: .*: no such folder"):
            find_references(CAST, path)


def test_links_are_followed_where_reading_is_allowed(tmp_path, root):
    draw(tmp_path / "outside" / "secret.png", RED)
    os.symlink(tmp_path / "outside" / "secret.png", root / "Green One" / "link.png")
    os.symlink(tmp_path / "outside", root / "Blue One")
    allowed = find_references(CAST, root, lambda path: path.resolve().is_relative_to(root)).pictures
    assert [*allowed] == ["Red One", "Green One"] and len(allowed["Green One"]) == 1
    os.mkfifo(root / "Green One" / "pipe.png")
    everything = find_references(CAST, root).pictures
    assert {name: len(paths) for name, paths in everything.items()} == {"Red One": 2, "Green One": 2, "Blue One": 1}
