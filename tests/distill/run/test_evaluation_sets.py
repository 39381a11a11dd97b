"""Which evaluation sets follow from which recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distill.data.sample import Sample, Skip, Source, limit_pixels
from distill.data.shards.source import open_shards
from distill.evaluate.evaluation_set import EvaluationSet
from distill.labels.label_set import LabelSet
from distill.recipe.config import RunConfig
from distill.recipe.sources import SourceSection
from distill.run.evaluation_sets import evaluation_sets
from export.runtime.errors import DataError
from tests.distill.data.shards.tars import sample, write_files, write_tar

TEACHER = {"kind": "hf", "model": "somewhere"}
TABLE = {"kind": "table", "path": "t.csv"}
FOLDER = {"kind": "folder", "path": "f"}
IMAGES = {"kind": "images", "path": "i"}
LABELS = LabelSet(("red cat", "dog", "owl"), ("a {}.",))


class Samples:
    """A source of (captions, label) entries in memory, whose pictures are never opened."""

    def __init__(self, entries: Sequence[tuple[tuple[str, ...], str | None]]) -> None:
        self._entries = entries
        self.name = "memory"
        self.skipped: tuple[Skip, ...] = ()
        self.rows = len(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        captions, label = self._entries[index]
        return Sample(key=str(index), image=b"", captions=captions, label=label)


CLASSES_AND_CAPTIONS = Samples([(("one",), "red_cat"), ((), "dog")])
CAPTIONS = Samples([((), None), (("one",), None)])
BARE = Samples([((), None)] * 2)


def config_of(**values: Any) -> RunConfig:
    return RunConfig.model_validate(
        {"teacher": TEACHER, "data": {"train": TABLE}, "losses": {"kl_divergence": 1}, **values}
    )


def opens(source: Source) -> Any:
    return lambda entry: source


def never(entry: SourceSection) -> Source:
    raise AssertionError(f"{entry} is opened")


def held_out(
    source: Source | None, *, labels: LabelSet | None = None, **values: Any
) -> list[EvaluationSet]:
    """Return the sets of a recipe that names none."""
    return evaluation_sets(config_of(**values), never, validation=source, labels=labels)


def named(
    entry: dict[str, Any],
    source: Source = BARE,
    *,
    labels: LabelSet | None = None,
    templates: list[str] | None = None,
) -> EvaluationSet:
    """Return the set of a recipe that names one."""
    data: dict[str, Any] = {"train": TABLE, "templates": templates}
    if labels is not None:
        data["labels"] = list(labels.names)
    config = config_of(data=data, evaluate={"name": "mine", "data": IMAGES, **entry})
    (found,) = evaluation_sets(config, opens(source), validation=None, labels=labels)
    return found


def tasks(sets: Sequence[EvaluationSet]) -> dict[str, str]:
    return {entry.name: entry.task for entry in sets}


# --- sets that the recipe names


def test_named_sets_keep_their_order_and_settings() -> None:
    entries = [
        {"name": "b", "task": "retrieval", "data": TABLE, "samples": 3},
        {"name": "a", "task": "zero_shot", "data": FOLDER, "classes": ["x", "y"]},
    ]
    sources = {"table": CAPTIONS, "folder": CLASSES_AND_CAPTIONS}
    found = evaluation_sets(
        config_of(evaluate=entries),
        lambda entry: sources[entry.kind],
        validation=CLASSES_AND_CAPTIONS,
        labels=None,
    )
    assert tasks(found) == {"b": "retrieval", "a": "zero_shot"}
    assert [entry.source for entry in found] == [CAPTIONS, CLASSES_AND_CAPTIONS]
    assert [entry.samples for entry in found] == [3, None]
    assert [entry.classes for entry in found] == [None, ("x", "y")]


def test_a_named_set_does_not_take_the_recipes_labels_for_classes() -> None:
    assert named({"task": "zero_shot"}, CLASSES_AND_CAPTIONS, labels=LABELS).classes is None


def test_agreement_takes_its_own_classes_before_the_recipes_labels() -> None:
    assert named({"task": "agreement"}, labels=LABELS).classes == LABELS.names
    entry = {"task": "agreement", "classes": ["a_b", "c"]}
    assert named(entry, labels=LABELS).classes == ("a_b", "c")


def test_classes_of_agreement_are_checked_as_labels_are() -> None:
    with pytest.raises(DataError, match=r"evaluate mine: classes: .*'cat'.*twice"):
        named({"task": "agreement", "classes": ["cat", "cat"]})


def test_classes_and_templates_may_come_from_files(tmp_path: Path) -> None:
    write_files(tmp_path, {"classes.txt": "cat\ndog\n", "templates.txt": "a {c}.\nthe {}.\n"})
    entry = {
        "task": "zero_shot",
        "classes": str(tmp_path / "classes.txt"),
        "templates": str(tmp_path / "templates.txt"),
    }
    found = named(entry)
    assert found.classes == ("cat", "dog")
    assert found.templates == ("a {}.", "the {}.")


# --- which templates count


def shards(folder: Path, **files: str) -> Source:
    """Return shards in a folder with class names, and with templates if any are given."""
    write_tar(folder / "0.tar", [*sample(0, cls="0"), *sample(1, cls="1")])
    write_files(folder, {"classnames.txt": "cat\ndog\n", **files})
    return open_shards(str(folder))


STATED = {"zeroshot_classification_templates.txt": "stated {c}\n"}


def test_templates_are_the_entrys_then_the_shards_then_the_recipes(tmp_path: Path) -> None:
    source = shards(tmp_path, **STATED)
    own = {"task": "zero_shot", "templates": ["own {}"]}
    bare = {"task": "zero_shot"}
    recipe = ["recipe {}"]
    assert named(own, source, templates=recipe).templates == ("own {}",)
    assert named(bare, source, templates=recipe).templates == ("stated {c}",)
    assert named(bare, BARE, templates=recipe).templates == ("recipe {}",)
    assert named(bare, BARE).templates == ("a photo of a {}.",)


def test_shards_state_their_classes_also_under_a_limit_of_pixels(tmp_path: Path) -> None:
    for source in (shards(tmp_path), limit_pixels(shards(tmp_path), 1000)):
        assert named({"task": "zero_shot"}, source).classes == ("cat", "dog")
        entry = {"task": "zero_shot", "classes": ["dog", "cat"]}
        assert named(entry, source).classes == ("dog", "cat")


def test_templates_of_the_recipe_reach_the_sets_that_it_does_not_name() -> None:
    (found,) = held_out(CAPTIONS, data={"train": TABLE, "templates": ["recipe {}"]})
    assert found.templates == ("recipe {}",)


# --- sets that follow from the data


def test_without_validation_data_there_is_nothing_to_measure() -> None:
    assert held_out(None) == []


def test_data_that_can_be_measured_in_one_way_gives_a_set_of_one_name() -> None:
    (found,) = held_out(CAPTIONS)
    assert (found.name, found.task, found.samples) == ("held_out", "retrieval", None)
    assert found.source is CAPTIONS


def test_data_that_can_be_measured_in_several_ways_gives_a_set_for_each() -> None:
    assert tasks(held_out(CLASSES_AND_CAPTIONS)) == {
        "held_out_zero_shot": "zero_shot",
        "held_out_retrieval": "retrieval",
    }
    assert tasks(held_out(CLASSES_AND_CAPTIONS, labels=LABELS)) == {
        "held_out_zero_shot": "zero_shot",
        "held_out_retrieval": "retrieval",
        "held_out_agreement": "agreement",
    }


def test_a_validation_source_gives_its_name_to_the_set() -> None:
    (found,) = held_out(CAPTIONS, data={"train": TABLE, "validation": TABLE})
    assert found.name == "validation"


def test_captions_of_folders_are_their_classes_and_are_not_retrieved() -> None:
    assert tasks(held_out(CLASSES_AND_CAPTIONS, data={"train": FOLDER})) == {
        "held_out": "zero_shot"
    }
    # With a table in training too, some captions say more than a class.
    several = held_out(CLASSES_AND_CAPTIONS, data={"train": [FOLDER, TABLE]})
    assert [entry.task for entry in several] == ["zero_shot", "retrieval"]
    # What counts is where the validation data comes from.
    (only,) = held_out(CLASSES_AND_CAPTIONS, data={"train": TABLE, "validation": FOLDER})
    assert only.task == "zero_shot"


def test_one_class_is_nothing_to_choose_from() -> None:
    assert held_out(Samples([((), "cat"), ((), "cat"), ((), None)])) == []


def test_zero_shot_takes_all_labels_if_they_know_every_class() -> None:
    known, _, _ = held_out(CLASSES_AND_CAPTIONS, labels=LABELS)
    assert known.classes == LABELS.names
    other = Samples([((), "red_cat"), ((), "horse")])
    unknown, agreement = held_out(other, labels=LABELS)
    assert unknown.classes is None
    assert (agreement.task, agreement.classes) == ("agreement", LABELS.names)


def test_labels_alone_give_agreement() -> None:
    assert tasks(held_out(BARE, labels=LABELS)) == {"held_out": "agreement"}
    assert held_out(BARE) == []


def test_without_a_teacher_nobody_agrees_and_labels_choose_nothing() -> None:
    values: dict[str, Any] = {
        "teacher": None,
        "student": {"width": 8},
        "losses": {"contrastive": 1},
    }
    found = held_out(CLASSES_AND_CAPTIONS, labels=LABELS, **values)
    assert [(entry.task, entry.classes) for entry in found] == [
        ("zero_shot", None),
        ("retrieval", None),
    ]
