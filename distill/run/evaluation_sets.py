"""The sets that a run is measured on: named by its recipe, or made of held-out pictures."""

from collections.abc import Callable

from distill.data.pairs import iterate
from distill.data.sample import Source, extras_of
from distill.evaluate.evaluation_set import EvaluationSet
from distill.labels.label_set import LabelSet
from distill.labels.names import are_labels, name_labels
from distill.labels.templates import DEFAULT_TEMPLATES
from distill.recipe.config import RunConfig
from distill.recipe.evaluate import EvaluationEntry
from distill.recipe.sources import SourceSection
from distill.run.labels import recipe_templates


def evaluation_sets(
    config: RunConfig,
    open_entry: Callable[[SourceSection], Source],
    *,
    validation: Source | None,
    labels: LabelSet | None,
) -> list[EvaluationSet]:
    """Return the recipe's evaluation sets, or sets made of its validation data.

    Raises:
        DataError: The data, labels or templates of a set cannot be used.
    """
    templates = recipe_templates(config.data) or DEFAULT_TEMPLATES
    if config.evaluation_entries:
        return [
            EvaluationSet(
                name=entry.name,
                task=entry.task,
                source=source,
                classes=_classes(entry, labels) or extras_of(source).class_names,
                templates=entry.template_list or extras_of(source).templates or templates,
                samples=entry.samples,
            )
            for entry in config.evaluation_entries
            for source in [open_entry(entry.data)]
        ]
    if validation is None:
        return []
    # Captions that are made from classes say nothing that the classes do not.
    entries = [config.data.validation] if config.data.validation else config.train_sources
    return _sets_of(
        validation,
        "held_out" if config.holds_out else "validation",
        captioned=any(not entry.captions_name_classes for entry in entries),
        labels=labels if config.teachers else None,
        templates=templates,
    )


def _classes(entry: EvaluationEntry, labels: LabelSet | None) -> tuple[str, ...] | None:
    if entry.task != "agreement":
        return entry.class_list
    if entry.classes is not None:
        return name_labels(entry.classes, field=f"evaluate {entry.name}: classes")
    return None if labels is None else labels.names


def _sets_of(
    source: Source,
    name: str,
    *,
    captioned: bool,
    labels: LabelSet | None,
    templates: tuple[str, ...],
) -> list[EvaluationSet]:
    """Return a set for each task that a source allows: classes, captions, agreement on labels."""
    samples = list(iterate(source))
    found = {sample.label for sample in samples if sample.label is not None}
    captioned = captioned and any(sample.captions for sample in samples)
    classes = {
        "zero_shot": labels.names
        if labels is not None and are_labels(found, labels.names)
        else None,
        "agreement": None if labels is None else labels.names,
    }
    there = {"zero_shot": len(found) > 1, "retrieval": captioned, "agreement": labels is not None}
    tasks = [task for task, is_there in there.items() if is_there]
    return [
        EvaluationSet(
            name=name if len(tasks) == 1 else f"{name}_{task}",
            task=task,
            source=source,
            classes=classes.get(task),
            templates=templates,
            samples=None,
        )
        for task in tasks
    ]
