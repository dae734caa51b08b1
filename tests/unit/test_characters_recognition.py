"""How well a LoHa knows a cast: tables known by construction, their CSV and their picture."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shinymas_loha.characters import CastError, read
from shinymas_loha.characters.catalogue import EMBEDDED, parse
from shinymas_loha.characters.recognition import Recognition, Seen, draw

CAST = parse(b"""
version: 1
characters:
  - {name: Anna, tags: [red hair, long hair, blue eyes, mole, hat], identity: [red hair, long hair, blue eyes, mole],
     cards: 52}
  - {name: Berta, tags: [black hair, long_hair], identity: [black hair, long_hair], cards: 4}
  - {name: Clara, tags: [glasses], identity: [glasses]}
  - {name: Nobody, tags: [hat]}
""", "test.yaml", "test")


def test_the_shares_of_each_ones_tags_are_counted():
    found = Recognition(CAST, [
        Seen("Anna", 1.0, ("Long Hair", "blue_eyes", "smile")),
        Seen("Anna", 1.0, ("red hair", "long hair", "blue eyes", "mole")),
        Seen("Berta", 0.0, ()),
    ])
    row = found.rows[1.0, "Anna"]
    assert row.pictures == 2 and row.shares == {"Anna": 0.75, "Berta": 0.5, "Clara": 0.0}
    assert row.recognised == 0.75  # in the first picture Berta's half is as much
    assert found.rows[0.0, "Berta"].recognised == 0.0  # nothing came back: like nobody
    assert [who.name for who in found.compared] == ["Anna", "Berta", "Clara"]


def test_strength_0_is_the_base_that_others_are_compared_with():
    found = Recognition(CAST, [Seen("Anna", 0.0, ("mole",)), Seen("Anna", 0.6, ("mole", "red hair", "glasses"))])
    assert found.strengths == (0.0, 0.6)
    assert found.change(0.6, "Anna", "Anna") == 0.25 and found.change(0.6, "Anna", "Clara") == 1.0
    assert found.change(0.0, "Anna", "Anna") is None
    assert found.lines() == [
        "pictures: 2 of 1 characters",
        "strength 0 (the base model alone): 25% of the identity tags came back, 100% of the pictures look most like "
        "who was asked for",
        "strength 0.6: 50% of the identity tags came back (+25%), 0% of the pictures look most like who was asked for",
        "Anna: 0: 25%, 0.6: 50% (+25%); at 0.6 then Clara 100%",
    ]


def test_without_a_base_nothing_is_compared_and_few_cards_are_marked():
    found = Recognition(CAST, [Seen("Berta", 1.0, ("black hair",))])
    assert found.lines()[-1] == "Berta (4 cards): 1: 50%; at 1 then Anna 0%"
    assert {row["change"] for row in csv.DictReader(io.StringIO(found.csv()))} == {""}


def test_the_csv_holds_every_cell():
    seen = [Seen(name, strength, ("long hair",)) for name in ("Anna", "Berta") for strength in (0.0, 1.0)]
    rows = list(csv.DictReader(io.StringIO(Recognition(CAST, seen).csv())))
    assert len(rows) == 2 * 2 * 3
    assert rows[0] == {"strength": "0", "drawn": "Anna", "cards": "52", "pictures": "1", "recognised": "0.0000",
                       "identity_of": "Anna", "share": "0.2500", "change": ""}
    assert rows[-2]["identity_of"] == "Berta" and rows[-2]["share"] == "0.5000" and rows[-2]["change"] == "0.0000"


def test_what_the_tagger_does_not_know_does_not_count():
    found = Recognition(CAST, [Seen("Anna", 1.0, ("red hair",))], lambda tag: tag not in ("mole", "glasses"))
    assert found.rows[1.0, "Anna"].shares == {"Anna": 1 / 3, "Berta": 0.0}
    assert found.not_known == ("glasses", "mole")


@pytest.mark.parametrize(("name", "message"), [
    ("Ana", "'Ana' is not in the cast 'test'; did you mean Anna"), ("Nobody", "no identity tags .* for Nobody")])
def test_whom_nobody_could_recognise(name, message):
    with pytest.raises(CastError, match=message):
        Recognition(CAST, [Seen(name, 1.0, ())])


@given(st.lists(st.tuples(st.sampled_from(["Anna", "Berta", "Clara"]), st.sampled_from([0.0, 0.6, 1.0]),
                          st.lists(st.sampled_from(["red hair", "long hair", "blue eyes", "mole", "glasses", "hat"]))),
                min_size=1, max_size=30))
def test_shares_are_shares(pictures):
    found = Recognition(CAST, [Seen(name, strength, tuple(tags)) for name, strength, tags in pictures])
    assert sum(row.pictures for row in found.rows.values()) == len(pictures)
    for (strength, name), row in found.rows.items():
        wanted = set(next(who for who in CAST.characters if who.name == name).identity)
        wanted = {tag.replace("_", " ") for tag in wanted}
        naive = [len(wanted & set(tags)) / len(wanted) for one, at, tags in pictures if (one, at) == (name, strength)]
        assert row.shares[name] == pytest.approx(sum(naive) / len(naive))
        assert all(0 <= share <= 1 for share in row.shares.values()) and 0 <= row.recognised <= 1


def test_the_withheld_are_never_looked_for():
    cast = read(EMBEDDED, "shinymas")
    who = cast.characters[0]
    found = Recognition(cast, [Seen(who.name, 1.0, who.identity)])
    assert found.rows[1.0, who.name].shares[who.name] == 1.0
    assert not found.not_known and len(found.compared) == 26


def test_the_heat_map_shows_a_cell_for_each_pair():
    found = Recognition(CAST, [Seen("Clara", 1.0, ("glasses",)), Seen("Anna", 0.0, ())])
    picture = draw(found, ["tagger: x"])
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    full = (picture == (8, 64, 129)).all(2)
    assert 200 < full.sum() < 24 * 24  # one cell alone is full
    assert (draw(Recognition(CAST, [Seen("Clara", 1.0, ())])) != (8, 64, 129)).any(2).all()
