"""Whether a teacher finds the caption of a picture among the other captions of a batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.data.pairs import group_rows
from distill.doctor._samples import FEWEST
from distill.doctor.finding import Finding, fine, note, wrong
from distill.evaluate.encoder import Vectors


@dataclass(frozen=True)
class _Matching:
    """How often the nearest caption of a batch is the picture's own, and the level of chance.

    ``place`` is the mean place of the true caption among the others: 0 for the first, 1 for the
    last. ``groups`` is the number of different pairs.
    """

    accuracy: float
    chance: float
    place: float
    groups: int

    @property
    def certain(self) -> float:
        """The place below which a result is not chance: two standard deviations under the middle.

        Without any relation, places are uniform, with the variance 1 / 12.
        """
        return 0.5 - 2 / math.sqrt(12 * self.groups) if self.groups >= FEWEST else 0.5


def match(image: Vectors, text: Vectors, groups: NDArray[np.int64]) -> _Matching:
    """Match the pictures of a batch with its captions; all rows of a group are true partners."""
    similarities = image @ text.T
    own = groups[:, None] == groups[None, :]
    best = np.where(own, similarities, -np.inf).max(axis=1, keepdims=True)
    before = ((similarities > best) & ~own).sum(axis=1)
    level = ((similarities == best) & ~own).sum(axis=1)
    others = (~own).sum(axis=1)
    # Each tie counts half as before and half as after. Without other captions there is no place.
    place = np.where(others > 0, (before + level / 2) / np.maximum(others, 1), 0.5)
    return _Matching(
        accuracy=float(((before + level) == 0).mean()),
        chance=float(own.mean()),
        place=float(place.mean()),
        groups=len(np.unique(groups)),
    )


def examine_pairs(
    about: str, image: Vectors, text: Vectors, keys: Sequence[int], captions: Sequence[int]
) -> list[Finding]:
    """Check that a model finds the pairs of a batch better than chance does.

    ``keys`` and ``captions`` are digests, which tell equal pictures and equal captions.
    """
    found = match(image, text, group_rows(keys, captions))
    if found.groups == 1:
        return [fine(about, f"all {len(image)} pairs are the same, so there is nothing to match")]
    sentence = (
        f"the nearest caption is the picture's own in {found.accuracy:.1%} of {len(image)} pairs, "
        f"against {found.chance:.1%} by chance"
    )
    ways = (
        "check that each caption belongs to its picture, and that the teacher is trained and "
        "reads the language of the captions"
    )
    if found.place >= found.certain:
        return [wrong(about, f"{sentence}; the teacher ranks captions no better than chance", ways)]
    if found.accuracy <= found.chance:
        return [note(about, f"{sentence}; the teacher is hardly better than chance", ways)]
    return [fine(about, sentence)]
