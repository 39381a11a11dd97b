"""An evaluation set: a source, and what to measure on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distill.data.sample import Source
from distill.labels.templates import DEFAULT_TEMPLATES


@dataclass(frozen=True)
class EvaluationSet:
    """One data set to measure on.

    Attributes:
        name: Its name in the report.
        task: Name of a task in `distill.evaluate.tasks.TASKS`.
        source: The pictures, with labels for zero_shot and captions for retrieval.
        classes: The candidates of zero_shot and agreement. For zero_shot, None means all labels of
            the source.
        templates: Prompts with ``{}`` for the class, for zero_shot and agreement.
        samples: How many pictures to measure at most, None for all.
    """

    name: str
    task: str
    source: Source
    classes: Sequence[str] | None = None
    templates: Sequence[str] = DEFAULT_TEMPLATES
    samples: int | None = None

    def limited(self, samples: int) -> "EvaluationSet":
        """Return the same set with at most this many samples."""
        return replace(self, samples=min(samples, self.samples or samples))
