"""What the result of each stage depends on, as values and as their digest."""

import hashlib
import json
from collections.abc import Mapping
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
    teachers = [entry.model_dump(mode="json") for entry in config.teachers]
    seed = config.seed if config.views.seed is None else config.views.seed
    cache: dict[str, Any] = {
        "teacher": _cached_teachers(teachers),
        "data": {
            "train": [entry.model_dump(mode="json") for entry in config.train_sources],
            **_marked(config.data, "cache"),
        },
        "views": {**config.views.model_dump(mode="json"), "seed": seed},
        "cache": _marked(config.cache, "cache"),
    }
    if stage == "cache":
        return cache
    train: dict[str, Any] = {
        **cache,
        **_marked(config, "train"),
        "teacher": teachers,
        "data": {**cache["data"], **_marked(config.data, "train")},
        "student": _student_values(config),
        "losses": _loss_values(config),
        "train": _marked(config.train, "train"),
    }
    match stage:
        case "train":
            return train
        case "evaluate":
            return {**train, **_evaluate_values(config)}
        case "export":
            return {**train, **_export_values(config)}


def _marked(section: Section, stage: Stage) -> dict[str, Any]:
    """Return the fields of a section whose first stage is this one, as they are written."""
    names = {
        name
        for name, field in type(section).model_fields.items()
        if any(mark == Changes(stage) for mark in field.metadata)
    }
    return section.model_dump(mode="json", include=names)


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


def _cached_teachers(teachers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return several teachers without their weights, because each has its own cache."""
    if len(teachers) == 1:
        return teachers
    return [_without(entry, frozenset({"weight"})) for entry in teachers]


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
    section = _marked(config.export, "export")
    if config.export.labels is not None:
        section["labels"] = list(name_labels(config.export.labels, field="export.labels"))
    values: dict[str, Any] = {"export": section}
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


def _without(values: Mapping[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in left_out}
