"""The seeded pick: even, deterministic, and steady when the cast grows."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shinymas_loha.characters import pick


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 30), rounds=st.integers(0, 2**64 // 30 - 1))
def test_every_round_of_seeds_visits_everyone_once(size, rounds):
    seeds = range(rounds * size, (rounds + 1) * size)
    assert sorted(pick(range(size), seed) for seed in seeds) == list(range(size))


def test_rounds_differ_in_order():
    orders = {tuple(pick(range(8), seed) for seed in range(start, start + 8)) for start in range(0, 80, 8)}
    assert len(orders) == 10


def test_everyone_opens_a_round_now_and_then():
    firsts = Counter(pick(range(6), 6 * turn) for turn in range(600))
    assert min(firsts[member] for member in range(6)) > 50


@pytest.mark.parametrize("size", [5, 12, 25, 26, 40])
def test_most_seeds_keep_their_character_when_one_joins(size):
    seeds = range(0, 300)
    kept = sum(pick(range(size), seed) == pick(range(size + 1), seed) for seed in seeds)
    assert kept / len(seeds) > 0.75


def test_the_same_seed_is_the_same_character_in_every_release():
    assert [pick(range(26), seed) for seed in (0, 1, 25, 26, 2**64 - 1)] == [5, 7, 0, 22, 16]


@pytest.mark.parametrize("size", [63, 64, 65, 130])
def test_large_casts_are_visited_evenly_too(size):
    assert len({pick(range(size), seed) for seed in range(2 * size, 2 * size + 8)}) == 8


@pytest.mark.parametrize(("members", "seed"), [((), 0), ((1,), -1)])
def test_nothing_to_pick_from(members, seed):
    with pytest.raises(ValueError, match="at least one member and a seed of 0 or more"):
        pick(members, seed)
