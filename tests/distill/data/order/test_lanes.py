"""The order of samples in shards: whole epochs, shards of one process, no state."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from distill.data.order._lanes import BLOCK_SHARDS, default_lanes
from distill.data.order.position import Place, Position
from export.runtime.errors import DataError

Lengths = NDArray[np.int64]

# Even shards; a smaller last one; all kinds; fewer than lanes would be; one; one that is empty.
CASES = {
    "even": [10] * 16,
    "last is small": [10] * 16 + [3],
    "uneven": [3, 50, 1, 17, 17, 8, 9, 30, 2, 2, 41, 5],
    "few": [40, 40, 40],
    "one": [100],
    "with an empty one": [20, 0, 20, 20, 0, 31],
}


def make(lengths: list[int], *, batch_size: int = 16, lanes: int | None = None) -> Position:
    shards = np.array(lengths, np.int64)
    return Position(
        [int(shards.sum())],
        weights=[None],
        seed=3,
        batch_size=batch_size,
        shards=[shards],
        lanes=lanes,
    )


def epoch(position: Position, number: int, rows: slice | None = None) -> list[Place]:
    steps = range(number * position.steps_per_epoch, (number + 1) * position.steps_per_epoch)
    return [place for step in steps for place in position.batch(step, rows)]


def shards_of(places: list[Place], lengths: list[int]) -> list[int]:
    ends = np.cumsum(lengths)
    return [int(np.searchsorted(ends, place.index, side="right")) for place in places]


@pytest.mark.parametrize("name", CASES)
def test_an_epoch_visits_every_sample_once(name: str) -> None:
    lengths = CASES[name]
    position = make(lengths)
    assert position.steps_per_epoch == sum(lengths) // 16
    orders = []
    for number in range(3):
        places = epoch(position, number)
        indices = [place.index for place in places]
        # What is dropped is less than a batch.
        assert len(set(indices)) == len(indices) == sum(lengths) // 16 * 16
        assert min(indices) >= 0
        assert max(indices) < sum(lengths)
        assert {place.times_shown for place in places} == {number}
        orders.append(indices)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("name", CASES)
def test_a_step_follows_from_its_number_alone(name: str) -> None:
    ahead = make(CASES[name])
    walked = [ahead.batch(step) for step in range(40)]
    for step in (39, 17, 3, 0, 25):
        assert make(CASES[name]).batch(step) == walked[step]
    assert ahead.batch(3) == walked[3]


@pytest.mark.parametrize("name", CASES)
def test_a_batch_takes_the_same_number_from_each_lane(name: str) -> None:
    position = make(CASES[name])
    lanes = position.lanes
    assert lanes == default_lanes(16, sum(length > 0 for length in CASES[name]))
    for step in range(position.steps_per_epoch):
        # Row r comes from lane r mod L, as the rank of each place shows.
        ranks = [place.rank for place in position.batch(step)]
        assert Counter(rank % lanes for rank in ranks) == dict.fromkeys(range(lanes), 16 // lanes)
        assert [rank % lanes for rank in ranks] == [row % lanes for row in range(16)]


@pytest.mark.parametrize("processes", [2, 4, 8])
@pytest.mark.parametrize("name", CASES)
def test_processes_share_out_the_batch_and_the_shards(name: str, processes: int) -> None:
    lengths = CASES[name]
    position = make(lengths)
    lanes = position.lanes or 0
    parts = [slice(process, None, processes) for process in range(processes)]
    for number in range(3):
        whole = epoch(position, number)
        mine = [epoch(position, number, rows) for rows in parts]
        # All processes together read what one reads alone, in the same steps.
        for process, places in enumerate(mine):
            assert places == whole[process::processes]
            if lanes % processes == 0:
                assert {place.rank % processes for place in places} == {process}
        if lanes % processes:
            continue
        readers = Counter(shard for places in mine for shard in set(shards_of(places, lengths)))
        shared = sum(count > 1 for count in readers.values())
        assert shared <= processes - 1
        if name in ("even", "last is small") and processes <= 4:
            assert shared == 0


def test_any_number_of_lanes_that_fits() -> None:
    lengths = [30] * 24
    position = make(lengths, batch_size=24, lanes=12)
    assert position.lanes == 12
    indices = [place.index for place in epoch(position, 0)]
    assert len(set(indices)) == len(indices) == 720
    for processes in (3, 6, 12):
        mine = [
            set(shards_of(epoch(position, 0, slice(process, None, processes)), lengths))
            for process in range(processes)
        ]
        assert sum(len(shards) for shards in mine) == 24


def test_the_default_number_of_lanes() -> None:
    assert default_lanes(256, 1000) == 64
    assert default_lanes(4096, 63) == 32
    assert default_lanes(48, 1000) == 16
    assert default_lanes(7, 1000) == 1
    assert default_lanes(256, 1) == 1


def test_lanes_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"data\.lanes: 4, but there are 3 shards"):
        make(CASES["few"], lanes=4)
    with pytest.raises(DataError, match=r"data\.lanes: 3 does not divide train\.batch_size: 16"):
        make(CASES["few"], lanes=3)


def test_a_lane_reads_few_shards_at_a_time_and_shuffles_them() -> None:
    lengths = [32] * 64
    position = make(lengths, batch_size=8, lanes=4)
    places = epoch(position, 0)
    lane = shards_of([place for place in places if place.rank % 4 == 1], lengths)
    size = BLOCK_SHARDS * 32
    blocks = [set(lane[first : first + size]) for first in range(0, len(lane), size)]
    assert [len(block) for block in blocks] == [BLOCK_SHARDS] * 4
    assert len(set.union(*blocks)) == 16
    # Neighbours in a lane are hardly ever neighbours in a shard.
    indices = np.array([place.index for place in places if place.rank % 4 == 1])
    assert np.mean(np.diff(indices) == 1) < 0.05


def test_what_an_epoch_drops_is_another_sample_each_time() -> None:
    lengths = [10] * 10
    position = make(lengths, batch_size=32)
    seen = Counter(place.index for number in range(60) for place in epoch(position, number))
    # 96 of 100 samples an epoch: each of them is left out now and then, none far too often.
    assert min(seen.values()) > 60 * 0.96 - 15
    assert len(seen) == 100


def test_a_sample_that_cannot_be_read_gives_its_place_to_one_of_its_lane() -> None:
    position = make([10] * 16)
    for place in position.batch(position.steps_per_epoch - 1):
        after = position.after(place)
        assert after.rank % (position.lanes or 0) == place.rank % (position.lanes or 0)
        assert after.rank > place.rank


def test_sources_of_a_list_keep_their_own_orders() -> None:
    lengths = [[25] * 16, None, [10] * 8]
    shards = [None if some is None else np.array(some, np.int64) for some in lengths]
    totals = [400, 100, 80]

    def fresh() -> Position:
        return Position(totals, weights=[None] * 3, seed=1, batch_size=128, shards=shards)

    position = fresh()
    assert position.lanes == 8
    walked = [position.batch(step) for step in range(60)]
    assert fresh().batch(41) == walked[41]
    places = [place for batch in walked for place in batch]
    for source, total in enumerate(totals):
        mine = [place for place in places if place.source == source]
        # The first pass shows every sample once, or all but fewer than there are lanes.
        first = [place.index for place in mine if place.times_shown == 0]
        assert len(set(first)) == len(first) == total
        assert sorted(place.rank for place in mine) == list(range(len(mine)))
        assert abs(len(mine) / len(places) - total / sum(totals)) < 0.05
    # Each process has the same share of every source, and its own shards.
    for processes in (2, 4, 8):
        parts = [slice(process, None, processes) for process in range(processes)]
        for step in range(10):
            counts = [
                Counter(place.source for place in position.batch(step, rows)) for rows in parts
            ]
            assert all(count == counts[0] for count in counts)
        for source in (0, 2):
            readers: Counter[int] = Counter()
            for rows in parts:
                first = [
                    place
                    for step in range(60)
                    for place in position.batch(step, rows)
                    if (place.source, place.times_shown) == (source, 0)
                ]
                readers.update(set(shards_of(first, lengths[source] or [])))
            assert set(readers.values()) == {1}


def test_a_list_that_says_it_has_no_shards_keeps_its_order() -> None:
    plain = Position([50, 30], weights=[1.0, None], seed=4, batch_size=8)
    same = Position([50, 30], weights=[1.0, None], seed=4, batch_size=8, shards=[None, None])
    assert [plain.batch(step) for step in range(20)] == [same.batch(step) for step in range(20)]


def test_another_process_draws_the_same() -> None:
    code = (
        "import numpy as np; from distill.data.order.position import Position;"
        "p = Position([700], weights=[None], seed=5, batch_size=32, shards=[np.full(70, 10)]);"
        "print([place.index for place in p.batch(33)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shards = [np.full(70, 10)]
    position = Position([700], weights=[None], seed=5, batch_size=32, shards=shards)
    assert done.stdout.strip() == str([place.index for place in position.batch(33)])
    # Pinned, so a run continues at the same samples with a newer version.
    first = [place.index for place in position.batch(33)][:8]
    assert first == [246, 415, 487, 358, 323, 562, 402, 671]
