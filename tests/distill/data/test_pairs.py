"""The caption that goes with a picture, and the rows that are true partners."""

from collections import Counter
from pathlib import Path

import numpy as np

from distill.data.pairs import Captions, group_rows
from distill.data.sample import Sample, Skip


class Listed:
    """A source over a list of samples."""

    name = "listed"
    skipped: tuple[Skip, ...] = ()

    def __init__(self, *captions: tuple[str, ...]) -> None:
        self._samples = [
            Sample(f"{number}.png", Path(f"{number}.png"), texts, None)
            for number, texts in enumerate(captions)
        ]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


def test_own_captions_take_turns() -> None:
    source = Listed(("a", "b", "c"))
    captions = Captions([source], seed=3)
    chosen = [captions.choose(source[0], times_shown=shown) for shown in range(6)]
    texts = [caption.text for caption in chosen if caption is not None]
    assert sorted(texts[:3]) == ["a", "b", "c"]
    assert texts[:3] == texts[3:]
    assert not any(caption.borrowed for caption in chosen if caption is not None)


def test_a_picture_without_captions_borrows_from_all_sources() -> None:
    first, second = Listed(("a", "b"), ()), Listed(("c",), ("d", "e"))
    captions = Captions([first, second], seed=0)
    assert (captions.total, captions.without) == (5, 1)
    counted: Counter[str] = Counter()
    for shown in range(2000):
        caption = captions.choose(first[1], times_shown=shown)
        assert caption is not None
        assert caption.borrowed
        counted[caption.text] += 1
    # Each of the five is expected 400 times, with a standard deviation of 18.
    assert set(counted) == set("abcde")
    assert all(abs(count - 400) < 90 for count in counted.values())


def test_no_caption_anywhere_gives_none() -> None:
    source = Listed((), ())
    assert Captions([source], seed=0).choose(source[0], times_shown=0) is None


def test_rows_that_share_a_key_or_a_caption_form_a_group() -> None:
    groups = group_rows([1, 2, 3, 1, 4], [10, 20, 30, 20, 40])
    # Rows 0 and 3 share the picture, 3 and 1 the caption.
    assert groups[0] == groups[1] == groups[3]
    assert len({groups[0], groups[2], groups[4]}) == 3


def test_a_borrowed_caption_has_no_partner() -> None:
    groups = group_rows([1, 1, 2], [10, -1, 10])
    assert np.array_equal(groups == -1, [False, True, False])
    assert groups[0] == groups[2]
