"""Comparison: every encoder on every evaluation set, on the same samples."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from distill.data.folder import DEFAULT_TEMPLATES
from distill.data.sample import Skip, Source
from distill.evaluate.agreement import agreement_on, any_pictures
from distill.evaluate.encoder import Encoder
from distill.evaluate.pictures import Options
from distill.evaluate.result import Metrics, SetResult
from distill.evaluate.retrieval import captioned_pictures, retrieval
from distill.evaluate.zero_shot import label_pictures, zero_shot
from distill.labels.label_set import LabelSet
from export.runtime.errors import RecipeError

FORMAT = 1
HEADLINES = {"zero_shot": "top1", "retrieval": "mean_recall", "agreement": "agreement@1"}


@dataclass(frozen=True)
class EvaluationSet:
    """One data set to measure on; the task is ``zero_shot``, ``retrieval`` or ``agreement``.

    ``classes`` and ``templates`` belong to zero_shot, which takes all labels of the source unless
    given some, and to agreement.
    """

    name: str
    task: str
    source: Source
    classes: Sequence[str] | None = None
    templates: Sequence[str] = DEFAULT_TEMPLATES
    samples: int | None = None

    def limited(self, samples: int) -> "EvaluationSet":
        """Return the same set with at most so many samples."""
        return replace(self, samples=min(samples, self.samples or samples))


def headline(task: str, metrics: Metrics) -> tuple[str, float | None]:
    """Return name and value of the one number that stands for a task."""
    name = HEADLINES[task]
    return name, metrics[name]


def check_set(entry: EvaluationSet) -> None:
    """See that a set has what its task asks for, without reading a picture.

    Raises:
        DataError: it lacks labels or captions, or a label is none of its classes.
    """
    match entry.task:
        case "zero_shot":
            label_pictures(entry.source, classes=entry.classes, samples=entry.samples)
        case "agreement":
            any_pictures(entry.source, samples=entry.samples)
        case _:
            captioned_pictures(entry.source, samples=entry.samples)


def measure(
    encoders: Sequence[Encoder], entry: EvaluationSet, *, options: Options | None = None
) -> SetResult:
    """Measure encoders on one set.

    Raises:
        RecipeError: the task is unknown.
        DataError: the set has not what the task asks for, or cannot be read.
    """
    match entry.task:
        case "zero_shot":
            return zero_shot(
                encoders,
                entry.source,
                classes=entry.classes,
                templates=entry.templates,
                samples=entry.samples,
                options=options,
            )
        case "retrieval":
            return retrieval(encoders, entry.source, samples=entry.samples, options=options)
        case "agreement":
            return agreement_on(
                encoders,
                entry.source,
                labels=LabelSet(tuple(entry.classes or ()), tuple(entry.templates)),
                samples=entry.samples,
                options=options or Options(),
            )
        case _:
            raise RecipeError(
                f"evaluate.{entry.name}: task is {entry.task!r}; "
                f"it must be one of {', '.join(HEADLINES)}"
            )


def compare(
    encoders: Sequence[Encoder],
    sets: Sequence[EvaluationSet],
    *,
    reference: str = "teacher",
    options: Options | None = None,
) -> tuple[dict[str, Any], list[Skip]]:
    """Return the content of ``report.json``, and the pictures that could not be read.

    ``retained`` is an encoder's headline divided by the reference's, ``agreement`` the share of
    first hits that are the reference's. An encoder of one tower is compared with the reference's
    other side, and ``borrowed`` says so. What does not exist is None: an encoder without both
    sides, no reference, a reference at 0. Progress is shown unless ``options`` say otherwise.

    Raises:
        RecipeError: two sets or two encoders have the same name, or a task is unknown.
        DataError: a set has not what its task asks for, or cannot be read.
    """
    _check_names("evaluate", [entry.name for entry in sets])
    _check_names("models", [encoder.name for encoder in encoders])
    skipped: list[Skip] = []
    report: dict[str, Any] = {
        "format": FORMAT,
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
                **_one_sided(result),
            }
        )
    return report, skipped


def _one_sided(result: SetResult) -> dict[str, Any]:
    """Return what only some sets have: borrowed sides, and pictures that models disagree on."""
    apart = {
        name: [asdict(entry) for entry in entries] for name, entries in result.disagreements.items()
    }
    return {
        **({"borrowed": dict(result.borrowed)} if result.borrowed else {}),
        **({"disagreements": apart} if apart else {}),
    }


def _retained(result: SetResult, name: str, reference: str) -> float | None:
    # The reference agrees with itself whatever it is worth.
    if reference not in result.results or result.task == "agreement":
        return None
    _, ours = headline(result.task, result.results[name])
    _, theirs = headline(result.task, result.results[reference])
    return ours / theirs if ours is not None and theirs else None


def _check_names(where: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"{where}: the name {name!r} is given more than once")
