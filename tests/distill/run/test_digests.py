"""Which fields belong to the digest of which stage: every field says so, and says it truly."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from distill.recipe.config import RunConfig
from distill.recipe.data import DataSection
from distill.recipe.load import resolve
from distill.recipe.stages import (
    IN_CACHE,
    IN_EVALUATE,
    IN_EXPORT,
    IN_NO_DIGEST,
    IN_TRAIN,
    STAGES,
    Changes,
    Stage,
)
from distill.run.digests import stage_digest, stage_values

SOURCE = {"kind": "table", "path": "a.csv"}
BASE: dict[str, Any] = {
    "teacher": {"model": "some/teacher"},
    "data": {"train": SOURCE, "validation": SOURCE},
}
# What each field changes first, and another value of it as overrides. This is what the marks are
# held against, so a field is judged twice, once here and once where it is defined.
FIRST: dict[Stage | None, dict[str, tuple[str, ...]]] = {
    None: {
        "output": ("output=runs/other",),
        "data.max_skipped": ("data.max_skipped=0.5",),
        "data.workers": ("data.workers=0",),
        "cache.shard_rows": ("cache.shard_rows=100",),
        "cache.batch_size": ("cache.batch_size=8",),
        "train.micro_batch_size": ("train.micro_batch_size=8",),
        "train.tile_rows": ("train.tile_rows=8",),
        "train.gradient_checkpointing": ("train.gradient_checkpointing=true",),
        "train.compile": ("train.compile=true",),
        "train.channels_last": ("train.channels_last=true",),
        "train.device": ("train.device=cpu",),
        "train.log_every": ("train.log_every=7",),
        "train.save_every": ("train.save_every=7",),
        "train.trackers": ("train.trackers=[tensorboard]",),
    },
    "cache": {
        "data.max_pixels": ("data.max_pixels=1000000",),
        "cache.views": ("cache.views=2",),
        "cache.folder": ("cache.folder=elsewhere",),
        "cache.dtype": ("cache.dtype=int8",),
    },
    "train": {
        # Views take the seed of the run unless they have one of their own.
        "seed": ("seed=1", "views.seed=5"),
        "data.lanes": ("data.lanes=4",),
        "train.teacher": ("train.teacher=live", "losses=clip_kd"),
        "train.batch_size": ("train.batch_size=32",),
        "train.steps": ("train.steps=7",),
        "train.epochs": ("train.epochs=7.0",),
        "train.optimizer": ("train.optimizer=muon",),
        "train.learning_rate": ("train.learning_rate=0.5",),
        "train.image_learning_rate": ("train.image_learning_rate=0.5",),
        "train.text_learning_rate": ("train.text_learning_rate=0.5",),
        "train.layer_decay": ("train.layer_decay=0.5",),
        "train.muon_learning_rate": ("train.muon_learning_rate=0.5",),
        "train.weight_decay": ("train.weight_decay=0.5",),
        "train.betas": ("train.betas=[0.5, 0.5]",),
        "train.warmup_steps": ("train.warmup_steps=7",),
        "train.schedule": ("train.schedule=constant",),
        "train.alignment_first_steps": (
            "train.alignment_first_steps=3",
            "losses={embedding_alignment: 1}",
        ),
        "train.freeze_image_steps": ("train.freeze_image_steps=3",),
        "train.freeze_text_steps": ("train.freeze_text_steps=3",),
        "train.ema_decay": ("train.ema_decay=0.9",),
        "train.precision": ("train.precision=bf16",),
        "train.gradient_clip": ("train.gradient_clip=null",),
        "train.validate_every": ("train.validate_every=7",),
        "train.validation_samples": ("train.validation_samples=7",),
    },
    "evaluate": {},
    "export": {
        "export.templates": ('export.templates=["a {}"]',),
        "export.opset": ("export.opset=20",),
        "export.tolerance": ("export.tolerance=0.01",),
    },
}
OTHER = {path: values for fields in FIRST.values() for path, values in fields.items()}


def marked_fields(
    model: type[BaseModel] = RunConfig, path: str = ""
) -> Iterator[tuple[str, Changes | None]]:
    """Yield the path and the mark of each field; a section without a mark answers by its fields."""
    for name, field in model.model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Changes)]
        inside = field.annotation
        if not marks and isinstance(inside, type) and issubclass(inside, BaseModel):
            yield from marked_fields(inside, f"{path}{name}.")
        else:
            yield path + name, marks[0] if len(marks) == 1 else None


def config(*overrides: str, **values: Any) -> RunConfig:
    return resolve({**BASE, **values}, overrides=overrides, where="r.yaml")


def changed(before: RunConfig, after: RunConfig) -> set[Stage]:
    return {stage for stage in STAGES if stage_digest(before, stage) != stage_digest(after, stage)}


def from_stage(stage: Stage | None) -> set[Stage]:
    """Return the stages whose digests a field covers: its own, and those that build on it."""
    match stage:
        case None:
            return set()
        case "evaluate" | "export":
            # Neither of them builds on the other.
            return {stage}
        case _:
            return set(STAGES[STAGES.index(stage) :])


def test_every_field_says_whether_it_changes_results() -> None:
    silent = [path for path, mark in marked_fields() if mark is None]
    assert silent == [], "mark them with IN_… of distill/recipe/stages.py"


def test_every_mark_is_tried() -> None:
    marks = dict(marked_fields())
    plain = {path for path, mark in marks.items() if mark is not None and not mark.resolved}
    resolved = {path for path, mark in marks.items() if mark is not None and mark.resolved}
    assert plain - OTHER.keys() == set(), "give each of them another value in FIRST"
    assert resolved - RESOLVED.keys() == set(), "give each of them another value in RESOLVED"
    assert (OTHER.keys() | RESOLVED.keys()) - marks.keys() == set(), "there are no such fields"


@pytest.mark.parametrize(
    ("path", "first"), [(path, stage) for stage, fields in FIRST.items() for path in fields]
)
def test_marks_are_those_of_the_table(path: str, first: Stage | None) -> None:
    mark = dict(marked_fields()).get(path)
    assert mark == Changes(first), f"{path} is marked {mark}, and FIRST says {first}"
    own, *others = OTHER[path]
    found = changed(config(*others), config(own, *others))
    assert found == from_stage(first), f"{path} changes the digests of {found or 'no stage'}"


def test_the_short_marks_stand_for_all_stages() -> None:
    marks = (IN_CACHE, IN_TRAIN, IN_EVALUATE, IN_EXPORT)
    assert [mark.stage for mark in marks] == list(STAGES)


class MoreData(DataSection):
    """The data section with a field for each mark."""

    of_cache: Annotated[int, IN_CACHE] = 0
    of_train: Annotated[int, IN_TRAIN] = 0
    of_evaluate: Annotated[int, IN_EVALUATE] = 0
    of_export: Annotated[int, IN_EXPORT] = 0
    of_none: Annotated[int, IN_NO_DIGEST] = 0


class MoreConfig(RunConfig):
    data: MoreData = MoreData()


@pytest.mark.parametrize("stage", [*STAGES, None])
def test_any_section_may_have_fields_of_any_stage(stage: Stage | None) -> None:
    values = {"teacher": {"model": "a/b"}, "data": {f"of_{str(stage).lower()}": 1}}
    before = MoreConfig.model_validate({"teacher": {"model": "a/b"}})
    assert changed(before, MoreConfig.model_validate(values)) == from_stage(stage)


DATA = {"train": SOURCE, "validation": SOURCE}
# Another value of each field that enters a digest as what it comes to.
RESOLVED: dict[str, list[tuple[dict[str, Any], Stage]]] = {
    "teacher": [
        ({"teacher": {"model": "other/teacher"}}, "cache"),
        ({"teacher": {"model": "some/teacher", "dtype": "float16"}}, "cache"),
    ],
    "student": [
        ({"student": {"image": {"backbone": "test_vit"}}}, "train"),
        ({"student": {"width": 7}}, "train"),
    ],
    "views": [
        ({"views": {"flip": True}}, "cache"),
        ({"views": {"seed": 3}}, "cache"),
        ({"views": {"draft": True}}, "cache"),
    ],
    "losses": [({"losses": "mobileclip"}, "train")],
    "data.train": [({"data": {**DATA, "train": {**SOURCE, "path": "b.csv"}}}, "cache")],
    "data.validation": [
        ({"data": {**DATA, "validation": {**SOURCE, "path": "b.csv"}}}, "evaluate")
    ],
    "data.labels": [
        ({"losses": {"prompt_kl": 1}, "data": {**DATA, "labels": ["cat", "dog"]}}, "train")
    ],
    "data.templates": [
        (
            {
                "losses": {"prompt_kl": 1},
                "data": {**DATA, "labels": ["cat", "dog"], "templates": ["the {}"]},
            },
            "train",
        )
    ],
    "evaluate": [({"evaluate": {"name": "a", "task": "retrieval", "data": SOURCE}}, "evaluate")],
    "export.labels": [({"export": {"labels": ["cat", "dog"]}}, "export")],
}


@pytest.mark.parametrize(
    ("path", "values", "first"),
    [(path, values, first) for path, cases in RESOLVED.items() for values, first in cases],
)
def test_what_is_resolved_is_covered_too(path: str, values: dict[str, Any], first: Stage) -> None:
    mark = dict(marked_fields()).get(path)
    assert mark == Changes(first, resolved=True), f"{path} is marked {mark}, not {first}"
    # Everything else that the case needs is set before, too.
    before = {name: value for name, value in values.items() if name != path.partition(".")[0]}
    if path == "data.templates":
        before["data"] = {**DATA, "labels": ["cat", "dog"]}
    found = changed(config(**before), config(**values))
    assert found == from_stage(first), f"{path} changes the digests of {found or 'no stage'}"


def test_the_largest_picture_is_another_cache() -> None:
    """Pictures above the limit are skipped, so another limit is another data set."""
    assert stage_values(config("data.max_pixels=1000"), "cache")["data"]["max_pixels"] == 1000
    assert "max_pixels" not in stage_values(config(), "cache")["data"]


def test_labels_and_templates_change_what_they_reach() -> None:
    data = {"train": SOURCE, "validation": SOURCE}
    named = {"data": {**data, "labels": ["cat", "dog"]}}
    assert changed(config(), config(**named)) == {"evaluate", "export"}
    loss = {"losses": {"prompt_kl": 1}}
    assert changed(config(**loss), config(**loss, **named)) == {"train", "evaluate", "export"}
    spoken = {"data": {**data, "templates": ["a {}"]}}
    assert changed(config(), config(**spoken)) == {"evaluate", "export"}


def test_the_templates_of_the_first_set_are_in_the_bundle() -> None:
    entry = {"name": "a", "task": "zero_shot", "data": SOURCE}
    before, after = (
        config(evaluate={**entry, "templates": [template]}) for template in ("a {}", "the {}")
    )
    assert changed(before, after) == {"evaluate", "export"}
