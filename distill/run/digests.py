"""What the result of each stage depends on, as values and as their digest."""

import hashlib
import json
from pathlib import Path
from typing import Any

from distill.labels.names import name_labels
from distill.labels.templates import DEFAULT_TEMPLATES
from distill.losses.catalogue import TERMS
from distill.recipe.base import Section
from distill.recipe.config import RunConfig
from distill.recipe.losses import Losses, expand
from distill.recipe.stages import Changes, Stage
from distill.recipe.student import LOGIT_SCALE, StudentTowers
from distill.run.labels import recipe_labels, recipe_templates


def stage_digest(config: RunConfig, stage: Stage) -> str:
    """Return a digest of all values that the result of a stage depends on."""
    values = json.dumps(stage_values(config, stage), sort_keys=True)
    return hashlib.sha256(values.encode()).hexdigest()


def stage_values(config: RunConfig, stage: Stage) -> dict[str, Any]:
    """Return the resolved values that the result of a stage depends on.

    They are those of the fields marked with the stage or one before it (distill/recipe/stages.py).
    Presets are expanded, a single entry is a list of one, and the views' seed is filled in.
    """
    if stage == "cache":
        return _merged(_marked(config, "cache"), _cache_values(config))
    if stage == "train":
        before = stage_values(config, "cache")
        return _merged(before, _marked(config, "train"), _train_values(config))
    own = _evaluate_values(config) if stage == "evaluate" else _export_values(config)
    return _merged(stage_values(config, "train"), _marked(config, stage), own)


def _marked(section: Section, stage: Stage) -> dict[str, Any]:
    """Return the fields marked with a stage, as they are written, here and in sections inside."""
    fields = type(section).model_fields
    names = {name for name, field in fields.items() if Changes(stage) in field.metadata}
    values = section.model_dump(mode="json", include=names)
    for name in fields.keys() - names:
        inside = getattr(section, name)
        if isinstance(inside, Section) and (found := _marked(inside, stage)):
            values[name] = found
    return values


def _merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Return nested values in one; later parts win."""
    merged: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, dict) and isinstance(merged.get(name), dict)
            merged[name] = _merged(merged[name], value) if both else value
    return merged


def _cache_values(config: RunConfig) -> dict[str, Any]:
    """Return the teachers, the training sources and the views."""
    teachers = _teacher_values(config)
    if len(teachers) > 1:
        # Each has its own cache, whatever its weight.
        teachers = [{k: v for k, v in entry.items() if k != "weight"} for entry in teachers]
    seed = config.seed if config.views.seed is None else config.views.seed
    return {
        "teacher": teachers,
        "data": {"train": [entry.model_dump(mode="json") for entry in config.train_sources]},
        "views": {**config.views.model_dump(mode="json"), "seed": seed},
    }


def _train_values(config: RunConfig) -> dict[str, Any]:
    """Return teachers with their weights, the student and the loss terms."""
    return {
        "teacher": _teacher_values(config),
        "student": _student_values(config),
        "losses": _loss_values(config),
    }


def _teacher_values(config: RunConfig) -> list[dict[str, Any]]:
    return [entry.model_dump(mode="json") for entry in config.teachers]


def _evaluate_values(config: RunConfig) -> dict[str, Any]:
    """Return the evaluation sets, and the values that they take from the data by default."""
    values: dict[str, Any] = {
        "evaluate": [entry.model_dump(mode="json") for entry in config.evaluation_entries]
    }
    if not config.evaluation_entries:
        validation = config.data.validation
        values["validation"] = None if validation is None else validation.model_dump(mode="json")
    templates = recipe_templates(config.data)
    if templates is not None:
        values["templates"] = list(templates)
    if config.data.labels is not None:
        values["labels"] = _label_values(config)
    return values


def expanded_losses(config: RunConfig) -> Losses:
    """Return the losses of a recipe with its preset written out."""
    return Losses.model_validate(
        {name: entry.model_dump() for name, entry in expand(config.losses).items()}
    )


def _loss_values(config: RunConfig) -> dict[str, Any]:
    """Return the terms, with the content of a file of prompts."""
    values: dict[str, Any] = expanded_losses(config).model_dump(mode="json", exclude_none=True)
    for name, term in values.items():
        if not TERMS[name].needs_prompts:
            continue
        bank = term.get("bank")
        if bank is not None and Path(bank).is_file():
            term["bank_sha256"] = hashlib.sha256(Path(bank).read_bytes()).hexdigest()
        if bank is None and config.data.labels is not None:
            term["labels"] = _label_values(config)
    return values


def _student_values(config: RunConfig) -> dict[str, Any]:
    """Return the student section with the logit scale that two towers start with."""
    values: dict[str, Any] = config.student.model_dump(mode="json")
    student = config.student
    if isinstance(student, StudentTowers) and student.logit_scale is None and not student.single:
        values["logit_scale"] = LOGIT_SCALE
    return values


def _label_values(config: RunConfig) -> dict[str, Any]:
    labels = recipe_labels(config.data)
    if labels is None:
        return {}
    return {"names": list(labels.names), "templates": list(labels.templates)}


def _export_values(config: RunConfig) -> dict[str, Any]:
    """Return the export section with the labels that it names, and the templates of prompts."""
    values: dict[str, Any] = {}
    if config.export.labels is not None:
        labels = name_labels(config.export.labels, field="export.labels")
        values["export"] = {"labels": list(labels)}
    known = [list(config.export.templates or DEFAULT_TEMPLATES)]
    if config.data.labels is not None:
        values["labels"] = _label_values(config)
        known.append(values["labels"]["templates"])
    templates = list(bundle_templates(config))
    # Only if nothing else covers them, so the digests of most recipes stay the same.
    if templates not in known:
        values["templates"] = templates
    return values


def bundle_templates(config: RunConfig) -> tuple[str, ...]:
    """Return the templates of the bundle: its own, those of the labels, or of the first set."""
    given = config.export.templates or recipe_templates(config.data)
    sets = config.evaluation_entries
    return given or (sets[0].template_list if sets else None) or DEFAULT_TEMPLATES
