"""Comparison: every encoder on every evaluation set, on the same samples."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from distill.data.sample import Skip
from distill.evaluate.encoder import Encoder
from distill.evaluate.evaluation_set import EvaluationSet
from distill.evaluate.metrics import Scores
from distill.evaluate.pictures import Options
from distill.evaluate.result import SetResult
from distill.evaluate.tasks import task_named
from export.runtime.errors import RecipeError

_FORMAT = 1


def headline(task: str, found: Scores) -> tuple[str, float | None]:
    """Return the name and the value of the one metric that represents a task."""
    name = task_named(task).headline
    return name, found[name]


def check_set(entry: EvaluationSet) -> None:
    """Check that a set has what its task needs, without reading a picture.

    Raises:
        RecipeError: The task is unknown.
        DataError: The set lacks labels or captions, or a label is not among its classes.
    """
    task_named(entry.task, of=f"evaluate.{entry.name}").check(entry)


def measure(
    encoders: Sequence[Encoder], entry: EvaluationSet, *, options: Options | None = None
) -> SetResult:
    """Measure encoders on one set.

    Raises:
        RecipeError: The task is unknown, or it needs a teacher and there is none.
        DataError: The set lacks what the task needs, or cannot be read.
    """
    task = task_named(entry.task, of=f"evaluate.{entry.name}")
    return task.measure(encoders, entry, options or Options())


def compare(
    encoders: Sequence[Encoder],
    sets: Sequence[EvaluationSet],
    *,
    reference: str = "teacher",
    options: Options | None = None,
) -> tuple[dict[str, Any], list[Skip]]:
    """Measure all encoders on all sets, and compare each with the reference.

    ``retained`` is an encoder's headline divided by the reference's. ``agreement`` is how often
    both have the same answer first. An encoder of one tower is compared with the reference's other
    side, and ``borrowed`` says so. A number is None if the encoder lacks a side, there is no
    reference, or the reference is at 0.

    Args:
        encoders: The models; no two have the same name.
        sets: What to measure on; no two have the same name.
        reference: Name of the model that the others are compared with.
        options: Shows progress bars unless it says otherwise. Its ``lender`` is the reference.

    Returns:
        The content of ``report.json``, and the pictures that could not be read.

    Raises:
        RecipeError: Two sets or two encoders have the same name, or a task is unknown.
        DataError: A set lacks what its task needs, or cannot be read.
    """
    _check_names("evaluate", [entry.name for entry in sets])
    _check_names("models", [encoder.name for encoder in encoders])
    skipped: list[Skip] = []
    report: dict[str, Any] = {
        "format": _FORMAT,
        "models": [
            {"name": encoder.name, "parameters": encoder.parameters, "bytes": encoder.bytes}
            for encoder in encoders
        ],
        "sets": [],
    }
    lender = next((encoder for encoder in encoders if encoder.name == reference), None)
    options = replace(options or Options(progress=True), lender=lender)
    for entry in sets:
        shown = replace(options, title=f"measuring {entry.name}")
        result = measure(encoders, entry, options=shown)
        skipped.extend(result.skipped)
        report["sets"].append(
            {
                "name": entry.name,
                "task": entry.task,
                "samples": result.samples,
                "results": result.results,
                "retained": {
                    encoder.name: _retained(result, encoder.name, reference) for encoder in encoders
                },
                "agreement": {
                    encoder.name: result.agreement(encoder.name, reference) for encoder in encoders
                },
                **_occasional(result),
            }
        )
    return report, skipped


def _occasional(result: SetResult) -> dict[str, Any]:
    """Return what only some sets have: borrowed sides, and pictures that models disagree on."""
    found: dict[str, Any] = {}
    if result.borrowed:
        found["borrowed"] = dict(result.borrowed)
    if result.disagreements:
        found["disagreements"] = {
            name: [asdict(entry) for entry in entries]
            for name, entries in result.disagreements.items()
        }
    return found


def _retained(result: SetResult, name: str, reference: str) -> float | None:
    if reference not in result.results or not task_named(result.task).retained:
        return None
    _, ours = headline(result.task, result.results[name])
    _, theirs = headline(result.task, result.results[reference])
    return ours / theirs if ours is not None and theirs else None


def _check_names(where: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"{where}: the name {name!r} is given more than once")
