"""What measuring a set gives, the same for every task."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from distill.data.sample import Skip
from distill.evaluate.metrics import Ids, agreement

Metrics = dict[str, float | None]

# What a metric is called in a table for people.
METRIC_TITLES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_per_class_recall": "per class",
    "image_to_text_recall@1": "i→t R@1",
    "image_to_text_recall@5": "i→t R@5",
    "image_to_text_recall@10": "i→t R@10",
    "text_to_image_recall@1": "t→i R@1",
    "text_to_image_recall@5": "t→i R@5",
    "text_to_image_recall@10": "t→i R@10",
    "mean_recall": "mean R",
    "agreement@1": "agrees",
    "agreement@5": "in its top 5",
}


@dataclass(frozen=True)
class Disagreement:
    """A picture by its index in the source and its key, and the label that either gives it."""

    index: int
    key: str
    reference: str
    found: str


@dataclass(frozen=True)
class SetResult:
    """The numbers of each encoder, by name, on the same samples.

    ``results`` are fractions of 1, None where an encoder lacks a tower. ``first`` are the ids of
    its first hits, an array per direction. ``skipped`` are the pictures that could not be read.
    ``borrowed`` says of an encoder of one tower whether its images or texts are the teacher's;
    ``disagreements`` are pictures that an encoder labels otherwise than the teacher.
    """

    task: str
    samples: int
    results: dict[str, Metrics]
    first: dict[str, tuple[Ids, ...] | None]
    skipped: list[Skip]
    borrowed: Mapping[str, str] = field(default_factory=dict)
    disagreements: Mapping[str, list[Disagreement]] = field(default_factory=dict)

    def agreement(self, name: str, reference: str) -> float | None:
        """Return how often an encoder's first hit is the reference's: the mean over directions."""
        ours, theirs = self.first.get(name), self.first.get(reference)
        if ours is None or theirs is None:
            return None
        shares = [agreement(a, b) for a, b in zip(ours, theirs, strict=True)]
        return sum(shares) / len(shares)
