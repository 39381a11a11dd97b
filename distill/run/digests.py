"""What the result of each stage depends on, as values and as a digest of them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.labels.label_set import label_set, label_templates, name_labels
from distill.recipe.config import RunConfig
from distill.recipe.losses import Losses, expand
from distill.recipe.student import LOGIT_SCALE, StudentTowers
from distill.run.names import Stage

# Fields that change how a stage runs and not what comes out of it.
_IN_NO_DIGEST: Mapping[str, frozenset[str]] = {
    "cache": frozenset({"batch_size", "shard_rows"}),
    "train": frozenset(
        {"device", "log_every", "save_every", "micro_batch_size", "tile_rows", "trackers"}
        | {"gradient_checkpointing", "compile", "channels_last"}
    ),
}


def stage_digest(config: RunConfig, stage: Stage) -> str:
    """Return what tells the result of a stage from that of another recipe."""
    values = json.dumps(stage_values(config, stage), sort_keys=True)
    return hashlib.sha256(values.encode()).hexdigest()


def stage_values(config: RunConfig, stage: Stage) -> dict[str, Any]:
    """Return the resolved values that the result of a stage depends on.

    Presets are expanded, a single entry is a list of one, and the views' seed is filled in.
    """
    values = config.model_dump(mode="json")
    seed = config.seed if config.views.seed is None else config.views.seed
    teachers = [entry.model_dump(mode="json") for entry in config.teachers]
    cache: dict[str, Any] = {
        "teacher": _cached_teachers(teachers),
        "data": {"train": [entry.model_dump(mode="json") for entry in config.train_sources]},
        "views": {**values["views"], "seed": seed},
        "cache": _without(values["cache"], _IN_NO_DIGEST["cache"]),
    }
    if stage == "cache":
        return cache
    train: dict[str, Any] = {
        **cache,
        "teacher": teachers,
        "seed": config.seed,
        "student": _student_values(config),
        "losses": _loss_values(config),
        "train": _without(values["train"], _IN_NO_DIGEST["train"]),
    }
    if config.data.lanes is not None:
        # The order of the samples follows from it.
        train["data"] = {**cache["data"], "lanes": config.data.lanes}
    if stage == "train":
        return train
    labels = {"labels": _label_values(config)} if config.data.labels is not None else {}
    if stage == "export":
        return {**train, "export": _export_values(config), **labels}
    entries = [entry.model_dump(mode="json") for entry in config.evaluation_entries]
    # Where no set is named, the validation data is what is measured on.
    named = {} if entries else {"validation": values["data"]["validation"]}
    templates = label_templates(config.data)
    spoken = {} if templates is None else {"templates": list(templates)}
    return {**train, "evaluate": entries, **named, **spoken, **labels}


def _cached_teachers(teachers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the teachers without their weights where there are several: each has its own cache."""
    if len(teachers) == 1:
        return teachers
    return [_without(entry, frozenset({"weight"})) for entry in teachers]


def expanded_losses(config: RunConfig) -> Losses:
    """Return the losses of a recipe with its preset written out."""
    return Losses.model_validate(
        {name: entry.model_dump() for name, entry in expand(config.losses).items()}
    )


def _loss_values(config: RunConfig) -> dict[str, Any]:
    """Return the terms, and with the name of a bank's file what it holds."""
    values: dict[str, Any] = expanded_losses(config).model_dump(mode="json", exclude_none=True)
    bank = values.get("prompt_kl", {}).get("bank")
    if bank is not None and Path(bank).is_file():
        values["prompt_kl"]["bank_sha256"] = hashlib.sha256(Path(bank).read_bytes()).hexdigest()
    if bank is None and "prompt_kl" in values and config.data.labels is not None:
        values["prompt_kl"]["labels"] = _label_values(config)
    return values


def _student_values(config: RunConfig) -> dict[str, Any]:
    """Return the section of the student, with the scale that two towers start with."""
    values: dict[str, Any] = config.student.model_dump(mode="json")
    student = config.student
    if isinstance(student, StudentTowers) and student.logit_scale is None and not student.single:
        values["logit_scale"] = LOGIT_SCALE
    return values


def _label_values(config: RunConfig) -> dict[str, Any]:
    labels = label_set(config.data)
    if labels is None:
        return {}
    return {"names": list(labels.names), "templates": list(labels.templates)}


def _export_values(config: RunConfig) -> dict[str, Any]:
    """Return the section of the export, with what the file of its labels holds."""
    values: dict[str, Any] = config.export.model_dump(mode="json", exclude={"labels"})
    if config.export.labels is not None:
        values["labels"] = list(name_labels(config.export.labels, field="export.labels"))
    return values


def _without(values: Mapping[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in left_out}
