"""The tasks that an evaluation set can have, one row each.

The metrics of a task are the rows of `distill.evaluate.metrics.METRICS` that name it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill.evaluate.agreement import agreement, any_pictures
from distill.evaluate.encoder import Encoder
from distill.evaluate.evaluation_set import EvaluationSet
from distill.evaluate.pictures import Options
from distill.evaluate.result import SetResult
from distill.evaluate.retrieval import captioned_pictures, retrieval
from distill.evaluate.zero_shot import label_pictures, zero_shot
from export.runtime.errors import RecipeError


@dataclass(frozen=True)
class _Task:
    """One task.

    Attributes:
        name: Its name in recipes and in ``report.json``.
        title: What the report calls it.
        headline: The metric that represents the task; more is better.
        measure: Measures encoders on a set.
        check: Raises DataError if a set lacks what the task needs, without reading a picture.
        retained: Whether the headline is compared with the teacher's. Agreement is a comparison
            with the teacher already.
    """

    name: str
    title: str
    headline: str
    measure: Callable[[Sequence[Encoder], EvaluationSet, Options], SetResult]
    check: Callable[[EvaluationSet], object]
    retained: bool = True


TASKS: tuple[_Task, ...] = (
    _Task(
        "zero_shot",
        "zero-shot classification",
        headline="top1",
        measure=zero_shot,
        check=label_pictures,
    ),
    _Task(
        "retrieval",
        "retrieval",
        headline="mean_recall",
        measure=retrieval,
        check=captioned_pictures,
    ),
    _Task(
        "agreement",
        "agreement with the teacher about labels",
        headline="agreement@1",
        measure=agreement,
        check=any_pictures,
        retained=False,
    ),
)


def task_named(name: str, *, of: str = "evaluate") -> _Task:
    """Return a task by its name; ``of`` says in the message which set asks for it.

    Raises:
        RecipeError: There is no such task.
    """
    for task in TASKS:
        if task.name == name:
            return task
    known = ", ".join(task.name for task in TASKS)
    raise RecipeError(f"{of}: task is {name!r}; it must be one of {known}")
