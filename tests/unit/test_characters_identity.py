"""The second measure: tables known by construction, beside those of the tags, in the CSV and in the picture."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shinymas_loha.characters.catalogue import parse
from shinymas_loha.characters.recognition import Embedded, Identity, Recognition, Seen, draw, one_person

CAST = parse(b"""
version: 1
characters:
  - {name: Anna, tags: [red hair], identity: [red hair], cards: 52}
  - {name: Berta, tags: [black hair], identity: [black hair], cards: 4}
  - {name: Clara, tags: [hat]}
""", "test.yaml", "test")
REFERENCES = {"Anna": np.array([[1, 0], [0.6, 0.8]], np.float32), "Berta": np.array([[0, 1]], np.float32)}


def embedded(name, strength, *numbers):
    return Embedded(name, strength, np.array(numbers, np.float32))


PICTURES = [embedded("Anna", 1.0, 1, 0), embedded("Anna", 0.0, 0, 1), embedded("Berta", 1.0, 0, 1),
            embedded("Anna", 0.0, 0.8, 0.6)]


def test_the_table_is_that_of_the_cosines():
    rows = Identity(CAST, PICTURES, REFERENCES).rows
    assert [*rows] == [(0.0, "Anna"), (1.0, "Anna"), (1.0, "Berta")]
    base, anna, berta = rows.values()
    assert (base.pictures, anna.pictures, berta.pictures) == (2, 1, 1)
    assert base.nearest == {"Anna": 0.5, "Berta": 0.5} and anna.nearest == {"Anna": 1.0, "Berta": 0.0}
    assert base.similarity == pytest.approx({"Anna": (0.8 + 0.96) / 2, "Berta": (1 + 0.6) / 2})
    assert anna.similarity == pytest.approx({"Anna": 1.0, "Berta": 0.0})
    assert base.margin == pytest.approx((-0.2 + 0.36) / 2) and anna.margin == pytest.approx(1.0)
    assert berta.nearest == {"Anna": 0.0, "Berta": 1.0} and berta.margin == pytest.approx(0.2)


def test_strength_0_is_the_base():
    found = Identity(CAST, PICTURES, REFERENCES)
    change = found.change(1.0, "Anna")
    assert change.nearest == {"Anna": 0.5, "Berta": -0.5} and change.margin == pytest.approx(0.92)
    assert change.similarity == pytest.approx({"Anna": 0.12, "Berta": -0.8})
    assert found.change(0.0, "Anna") is None and found.change(1.0, "Berta") is None
    assert found.lines() == [
        "identity, references: 3 pictures of 2 characters, 1 to 2 of each",
        "identity, strength 0 (the base model alone): 50% of the pictures are nearest to a reference of who was asked "
        "for, more similar by +0.080 than to the best other",
        "identity, strength 1: 100% (+50%) of the pictures are nearest to a reference of who was asked for, more "
        "similar by +0.600 (+0.920) than to the best other",
        "identity, Anna: 0: 50% by +0.080, 1: 100% (+50%) by +1.000 (+0.920); at 1 then Berta",
        "identity, Berta (4 cards): 1: 100% by +0.200; at 1 then Anna",
    ]


def test_who_is_as_near_shares_a_picture():
    found = Identity(CAST, [embedded("Anna", 1.0, 1, 0)], {"Anna": REFERENCES["Anna"][:1],
                                                          "Berta": REFERENCES["Anna"][:1]})
    row = found.rows[1.0, "Anna"]
    assert row.nearest == {"Anna": 0.5, "Berta": 0.5} and row.margin == 0.0
    assert found.lines()[0] == "identity, references: 2 pictures of 2 characters, 1 of each"
    assert "more similar by +0.000 than" in found.lines()[1]


def test_the_csv_has_both_measures():
    seen = [Seen(one.name, one.strength, ("red hair",)) for one in PICTURES]
    table = Recognition(CAST, seen)
    second = Identity(CAST, PICTURES, REFERENCES | {"Clara": np.array([[-1, 0]], np.float32)})
    rows = list(csv.DictReader(io.StringIO(table.csv(second))))
    assert [*rows[0]] == ["strength", "drawn", "cards", "pictures", "recognised", "identity_of", "share", "change",
                          *Identity.COLUMNS]
    assert [(row["drawn"], row["strength"], row["identity_of"]) for row in rows] == [
        (name, strength, other) for name, strength in (("Anna", "0"), ("Anna", "1"), ("Berta", "1"))
        for other in ("Anna", "Berta", "Clara")]
    assert rows[0] == {
        "strength": "0", "drawn": "Anna", "cards": "52", "pictures": "2", "recognised": "1.0000",
        "identity_of": "Anna", "share": "1.0000", "change": "", "one_person": "2", "nearest": "0.5000",
        "nearest_change": "", "similarity": "0.8800", "similarity_change": "", "margin": "0.0800", "margin_change": ""}
    assert rows[4] | {"strength": "", "cards": ""} == {
        "strength": "", "drawn": "Anna", "cards": "", "pictures": "1", "recognised": "1.0000",
        "identity_of": "Berta", "share": "0.0000", "change": "0.0000", "one_person": "1", "nearest": "0.0000",
        "nearest_change": "-0.5000", "similarity": "0.0000", "similarity_change": "-0.8000", "margin": "1.0000",
        "margin_change": "0.9200"}
    # Clara has references and no identity tags.
    assert rows[5]["share"] == rows[5]["change"] == "" and rows[5]["similarity"] == "-1.0000"


def test_the_csv_of_who_has_no_references_says_so():
    table = Recognition(CAST, [Seen(name, 1.0, ()) for name in ("Anna", "Berta")])
    second = Identity(CAST, PICTURES[:1], {"Anna": REFERENCES["Anna"], "Clara": REFERENCES["Berta"]})
    rows = list(csv.DictReader(io.StringIO(table.csv(second))))
    assert [(row["one_person"], row["nearest"]) for row in rows] == [
        ("1", "1.0000"), ("1", ""), ("1", "0.0000"), ("0", ""), ("0", ""), ("0", "")]
    assert rows[1]["margin"] == "1.0000" and rows[3]["margin"] == ""


def test_the_heat_map_has_a_second_row_of_tables():
    table = Recognition(CAST, [Seen("Anna", 1.0, ()), Seen("Anna", 0.0, ()), Seen("Berta", 1.0, ())])
    one, both = draw(table), draw(table, second=Identity(CAST, PICTURES, REFERENCES))
    assert both.shape[0] > 1.5 * one.shape[0]
    assert not (one == (8, 64, 129)).all(2).any()
    full = (both == (8, 64, 129)).all(2).sum()
    assert 2 * 200 < full < 2 * 24 * 24  # Anna's and Berta's own cells at strength 1


def test_titles_of_a_small_cast_stand_apart():
    picture = draw(Recognition(CAST, [Seen("Anna", 1.0, ()), Seen("Anna", 0.0, ())]))
    inked = "".join(" #"[int(column)] for column in (picture[:24] < 128).all(2).any(0))
    assert len([title for title in inked.split(" " * 12) if title.strip()]) == 2


@pytest.mark.parametrize(("tags", "is_one"), [
    (("solo",), True), (("1girl", "solo", "smile"), True), (("1Boy",), True), (("1other", "solo"), True),
    ((), False), (("smile",), False), (("2girls",), False), (("1girl", "1boy"), False),
    (("1girl", "1boy", "solo"), False),
    (("1girl", "2girls"), False), (("solo", "multiple_girls"), False), (("1girl", "multiple boys"), False),
    (("1girl", "6+girls"), False), (("1girl", "6+boys"), False), (("1girl", "12girls"), False),
    (("1girl", "solo_focus"), False), (("1girl", "crowd"), False), (("solo", "no humans"), False),
    (("1girl", "everyone"), False), (("1girl", "1girls"), True)])
def test_one_person_is_what_the_tags_say(tags, is_one):
    assert one_person(tags) is is_one


@given(st.lists(st.tuples(st.sampled_from(["Anna", "Berta"]), st.sampled_from([0.0, 1.0]),
                          st.floats(0, 6.283)), min_size=1, max_size=20))
def test_shares_are_shares(pictures):
    made = [embedded(name, strength, np.cos(angle), np.sin(angle)) for name, strength, angle in pictures]
    found = Identity(CAST, made, REFERENCES)
    assert sum(row.pictures for row in found.rows.values()) == len(made)
    for (strength, name), row in found.rows.items():
        assert sum(row.nearest.values()) == pytest.approx(1)
        mine = [one.embedding for one in made if (one.strength, one.name) == (strength, name)]
        for who, references in REFERENCES.items():
            naive = [max(float(one @ reference) for reference in references) for one in mine]
            assert row.similarity[who] == pytest.approx(sum(naive) / len(naive), abs=1e-5)
    names, strengths, _ = map(set, zip(*pictures, strict=True))
    assert len(found.lines()) == 1 + len(strengths) + len(names)
