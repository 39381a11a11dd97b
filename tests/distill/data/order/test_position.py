"""Which samples make up a step."""

from collections import Counter

import pytest

from distill.data.order.position import Position
from export.runtime.errors import DataError


def rows(position: Position, steps: range) -> list[tuple[int, int]]:
    return [(place.source, place.index) for step in steps for place in position.batch(step)]


def test_an_epoch_visits_every_sample_once_and_drops_the_incomplete_batch() -> None:
    position = Position([103], weights=[None], seed=1, batch_size=10)
    assert position.steps_per_epoch == 10
    first = rows(position, range(10))
    second = rows(position, range(10, 20))
    assert len(set(first)) == len(set(second)) == 100
    assert first != second


def test_times_shown_counts_epochs() -> None:
    position = Position([20], weights=[None], seed=1, batch_size=10)
    assert {place.times_shown for place in position.batch(1)} == {0}
    assert {place.times_shown for place in position.batch(2)} == {1}


def test_a_step_is_a_pure_function() -> None:
    ahead = Position([50, 30], weights=[1.0, None], seed=4, batch_size=8)
    fresh = Position([50, 30], weights=[1.0, None], seed=4, batch_size=8)
    walked = [ahead.batch(step) for step in range(40)]
    assert fresh.batch(39) == walked[39]
    assert fresh.batch(3) == walked[3]


def test_processes_share_the_global_batch() -> None:
    position = Position([64], weights=[None], seed=0, batch_size=16)
    halves = position.batch(5, slice(0, 8)) + position.batch(5, slice(8, 16))
    assert halves == position.batch(5)


def test_weights_give_the_shares_of_a_mix() -> None:
    position = Position([100, 300], weights=[3.0, 1.0], seed=0, batch_size=100)
    counted = Counter(source for source, _ in rows(position, range(100)))
    assert counted == {0: 7500, 1: 2500}


def test_each_source_of_a_mix_runs_through_its_own_permutation() -> None:
    position = Position([40, 60], weights=[None, None], seed=0, batch_size=10)
    places = [place for step in range(30) for place in position.batch(step)]
    for source, length in ((0, 40), (1, 60)):
        mine = [place for place in places if place.source == source]
        assert [place.rank for place in mine] == list(range(len(mine)))
        assert {place.index for place in mine[:length]} == set(range(length))


def test_a_batch_larger_than_the_data_names_both_numbers() -> None:
    with pytest.raises(DataError, match=r"train\.batch_size: 32 .* 20 samples"):
        Position([12, 8], weights=[None, None], seed=0, batch_size=32)
