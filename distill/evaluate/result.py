"""The result of measuring one set, the same for every task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from distill.data.sample import Skip
from distill.evaluate.metrics import Rankings, Scores, scores, share_equal


@dataclass(frozen=True)
class Disagreement:
    """A picture that two models label differently.

    ``index`` is its place in the source. ``reference`` is the teacher's label, ``found`` the other
    model's.
    """

    index: int
    key: str
    reference: str
    found: str


@dataclass(frozen=True)
class SetResult:
    """What each model answers on the same samples.

    Attributes:
        task: Name of the task.
        samples: Number of pictures measured.
        rankings: By model; None for a model that lacks a tower and cannot borrow one.
        skipped: Pictures that could not be read.
        borrowed: For a model of one tower, whether its ``images`` or its ``texts`` come from the
            teacher.
        disagreements: By model, pictures that it labels differently from the teacher.
    """

    task: str
    samples: int
    rankings: Mapping[str, Rankings | None]
    skipped: list[Skip]
    borrowed: Mapping[str, str] = field(default_factory=dict)
    disagreements: Mapping[str, list[Disagreement]] = field(default_factory=dict)

    @cached_property
    def results(self) -> dict[str, Scores]:
        """Every metric of the task by model, as fractions of 1."""
        return {name: scores(self.task, found) for name, found in self.rankings.items()}

    def agreement(self, name: str, reference: str) -> float | None:
        """Return how often two models have the same answer first, averaged over directions."""
        ours, theirs = self.rankings.get(name), self.rankings.get(reference)
        if ours is None or theirs is None:
            return None
        shares = [share_equal(ours[way].first, theirs[way].first) for way in ours]
        return sum(shares) / len(shares)
