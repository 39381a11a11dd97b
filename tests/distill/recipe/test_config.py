"""The sections of a recipe: frozen, closed, described and consistent."""

import re
import subprocess
import sys
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from distill.losses.catalogue import TERMS
from distill.recipe.config import RunConfig
from distill.recipe.evaluate import EvaluationEntry
from distill.recipe.sources import ScenesSection, TableSection
from distill.recipe.student import StudentHf, StudentTowers
from distill.recipe.teachers import HfTeacherSection
from export.runtime.errors import DataError
from tests.distill.recipe.config_pieces import TEACHER, config, mistakes


def sections(model: type[BaseModel] = RunConfig) -> set[type[BaseModel]]:
    found = {model}

    def visit(annotation: Any) -> None:
        is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        if is_model and annotation not in found:
            found.update(sections(annotation))
        for part in get_args(annotation):
            visit(part)

    for field in model.model_fields.values():
        visit(field.annotation)
    return found


def test_every_field_has_a_sentence() -> None:
    assert len(sections()) > 12
    bare = [
        f"{model.__name__}.{name}"
        for model in sections()
        for name, field in model.model_fields.items()
        if not re.fullmatch(r".+\.", field.description or "")
    ]
    assert bare == []


def test_every_number_has_a_range() -> None:
    schema = RunConfig.model_json_schema()
    limits = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}

    def numbers(node: Any, path: str) -> list[str]:
        if isinstance(node, list):
            return [x for i, part in enumerate(node) for x in numbers(part, f"{path}.{i}")]
        if not isinstance(node, dict):
            return []
        bare = node.get("type") in ("integer", "number") and not limits & set(node)
        rest = [x for key, part in node.items() for x in numbers(part, f"{path}.{key}")]
        return [path, *rest] if bare else rest

    assert numbers(schema, "") == []


def test_config_is_frozen_and_closed() -> None:
    run = config()
    with pytest.raises(ValidationError, match="frozen"):
        run.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        run.train.batch_size = 3
    assert mistakes(colour=1)[0].startswith("r.yaml: colour: unknown key")


def test_importing_it_loads_no_torch() -> None:
    code = (
        "import sys, distill.recipe.load, distill.losses.presets; print('torch' in sys.modules, "
        "'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# --- one entry or a list


def test_one_entry_reads_like_a_list_of_one() -> None:
    source = {"kind": "table", "path": "a.csv"}
    single, listed = config(data={"train": source}), config(data={"train": [source]})
    assert single.train_sources == listed.train_sources == (TableSection(path="a.csv"),)
    assert config(teacher=[TEACHER]).teachers == (HfTeacherSection(model="some/teacher"),)
    entry = {"name": "a", "task": "retrieval", "data": source}
    assert [e.name for e in config(evaluate=entry).evaluation_entries] == ["a"]
    assert [e.name for e in config(evaluate=[entry]).evaluation_entries] == ["a"]
    assert config().evaluation_entries == ()


def test_an_empty_list_is_a_mistake() -> None:
    assert mistakes(teacher=[]) == ["r.yaml: teacher: found [], must have at least one entry"]


# --- defaults that follow from other fields


def test_a_run_has_ten_epochs_by_default() -> None:
    assert (config().train.steps, config().train.epochs) == (None, 10.0)
    run = config(train={"steps": 30})
    assert (run.train.steps, run.train.epochs) == (30, None)
    assert config(train={"epochs": 0.5}).train.epochs == 0.5


def test_a_run_has_exactly_one_length() -> None:
    both = mistakes(train={"steps": 30, "epochs": 2})
    assert both == ["r.yaml: train.steps: found 30 and epochs 2; give only one"]
    (neither,) = mistakes(train={"steps": None, "epochs": None})
    assert neither.startswith("r.yaml: train.steps: missing")


def test_centre_crops_have_one_view_by_default() -> None:
    assert config(views={"kind": "center"}).cache.views == 1
    (line,) = mistakes(views={"kind": "center"}, cache={"views": 4})
    assert line.startswith("r.yaml: cache.views: found 4, must be 1")


# --- without a teacher


def test_terms_that_need_a_teacher_are_refused_without_one() -> None:
    values = {"teacher": None, "student": {"width": 64}}
    (line,) = mistakes(**values)
    assert line.startswith("r.yaml: losses: kl_divergence and corpus_kl and")
    assert "need a teacher, but the recipe has no teacher" in line
    run = config(**values, losses={"contrastive": 1})
    assert run.train.teacher == "absent"
    assert run.teachers == ()


def test_a_teacher_absent_in_training_counts_as_none() -> None:
    (line,) = mistakes(train={"teacher": "absent"})
    assert line.startswith("r.yaml: losses: kl_divergence and")
    assert config(train={"teacher": "absent"}, losses={"contrastive": 1}).teachers


def test_without_a_teacher_only_towers_need_a_width() -> None:
    losses = {"contrastive": 1}
    (line,) = mistakes(teacher=None, losses=losses)
    assert line.startswith("r.yaml: student.width: missing")
    config(teacher=None, losses=losses, student={"kind": "hf", "model": "x"})


def test_training_with_a_teacher_needs_one() -> None:
    lines = mistakes(teacher=None, student={"width": 8}, train={"teacher": "live"})
    assert lines[0].startswith("r.yaml: train.teacher: found 'live', but the recipe has no teacher")


# --- students


def test_teachers_of_a_list_differ_and_have_weight() -> None:
    other = {"model": "other/teacher"}
    assert [
        entry.weight for entry in config(teacher=[{**TEACHER, "weight": 2}, other]).teachers
    ] == [
        2,
        1,
    ]
    assert mistakes(teacher=[{**TEACHER, "weight": 2}, other, TEACHER]) == [
        "r.yaml: teacher.2: the same as teacher.0; name it once, with its weight"
    ]
    for weight in (0, -1, float("inf"), "2"):
        (line,) = mistakes(teacher=[TEACHER, {**other, "weight": weight}])
        assert line.startswith(f"r.yaml: teacher.1.weight: found {weight!r}, must be"), line
    (line,) = mistakes(teacher=[TEACHER, {**other, "weight": 1e-9}])
    assert line.startswith(
        "r.yaml: teacher.1.weight: found 1e-09, too small next to the largest, 1"
    )


def test_student_kinds() -> None:
    assert isinstance(config().student, StudentTowers)
    student = config(student={"kind": "hf", "model": "x"}).student
    assert isinstance(student, StudentHf)
    assert student.build_arguments() == {
        "model": "x",
        "config": None,
        "pretrained": True,
        "tokenizer": None,
        "image_processor": None,
        "logit_scale": None,
    }
    towers = StudentTowers(image=None).build_arguments()
    assert towers["image"] is None
    assert towers["text"]["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert set(towers) == {"image", "text"}


@pytest.mark.parametrize(
    ("student", "path"),
    [
        ({"image": None, "text": None}, "student:"),
        ({"text": {"config": {}}}, "student.text.pretrained:"),
        ({"text": {"model": None, "pretrained": False}}, "student.text.model:"),
        ({"text": {"model": None, "config": {}, "pretrained": False}}, "student.text.tokenizer:"),
        ({"image": {"weights": "w", "pretrained": False}}, "student.image.weights:"),
        ({"kind": "hf"}, "student.model:"),
        ({"kind": "hf", "config": {"model_type": "clip"}}, "student.pretrained:"),
        ({"kind": "hf", "start": "a", "model": "b"}, "student.model:"),
    ],
)
def test_students_that_contradict_themselves(student: dict[str, Any], path: str) -> None:
    assert mistakes(student=student)[0].startswith(f"r.yaml: {path}")


def test_a_student_with_one_tower_takes_only_terms_for_one() -> None:
    (line,) = mistakes(student={"text": None})
    assert line == (
        "r.yaml: losses.kl_divergence: needs both towers, but the student has one; set it to 0"
    )
    (line,) = mistakes(student={"text": None}, losses={"contrastive": 1})
    assert line.endswith("needs both towers, but the student has one; remove it")
    config(student={"text": None}, losses={"preset": "default", "kl_divergence": 0})


@pytest.mark.parametrize("absent", ["image", "text"])
@pytest.mark.parametrize("term", sorted(TERMS))
def test_every_term_fits_one_tower_or_is_refused_in_one_line(term: str, absent: str) -> None:
    values: dict[str, Any] = {"student": {absent: None}, "losses": {term: 1}}
    if TERMS[term].towers not in ("both", absent):
        assert set(config(**values).terms) == {term}
        return
    (line,) = mistakes(**values)
    needed = "an image tower" if TERMS[term].towers == "image" else "both towers"
    assert line.startswith(f"r.yaml: losses.{term}: needs {needed}, but the student has ")


def test_one_tower_needs_a_teacher() -> None:
    (line,) = mistakes(
        student={"text": None}, losses={"embedding_alignment": 1}, train={"teacher": "absent"}
    )
    assert line.endswith("but train.teacher is absent; give a teacher")


# --- the rest


def test_evaluation_names_are_unique() -> None:
    entry = {"name": "a", "task": "retrieval", "data": {"kind": "scenes"}}
    (line,) = mistakes(evaluate=[entry, entry])
    assert line == "r.yaml: evaluate: 2 sets are called 'a'; give each its own name"


def test_retrieval_has_no_classes() -> None:
    entry = {"name": "a", "task": "retrieval", "data": {"kind": "scenes"}, "classes": ["b"]}
    assert mistakes(evaluate=entry)[0].startswith("r.yaml: evaluate.classes: only zero_shot")
    assert mistakes(evaluate=[entry])[0].startswith("r.yaml: evaluate.0.classes: only zero_shot")


def test_the_ends_of_a_range_are_in_order() -> None:
    (line,) = mistakes(views={"scale": [0.9, 0.5]})
    assert line == "r.yaml: views.scale: found [0.9, 0.5], the first must be ≤ the second"


def test_half_precision_needs_a_gpu() -> None:
    assert mistakes(train={"precision": "fp16", "device": "cpu"})[0].startswith(
        "r.yaml: train.precision: fp16 does not train on a CPU"
    )


def test_templates_and_classes_come_from_a_list_or_a_file(tmp_path: Any) -> None:
    names, prompts = tmp_path / "names.txt", tmp_path / "prompts.txt"
    names.write_text("\ufeffred fox\n\n  Hund \n", encoding="utf-8")
    prompts.write_text("a {}.\nno place\n")
    entry = EvaluationEntry(
        name="a",
        task="zero_shot",
        data=ScenesSection(),
        templates=str(prompts),
        classes=str(names),
    )
    assert entry.class_list == ("red fox", "Hund")
    with pytest.raises(DataError, match="'no place' is not a template"):
        _ = entry.template_list
    lists = entry.model_copy(update={"templates": ("{}",), "classes": None})
    assert (lists.template_list, lists.class_list) == (("{}",), None)
    missing = entry.model_copy(update={"classes": str(tmp_path / "none.txt")})
    with pytest.raises(DataError, match=r"evaluate a: classes: there is no file .*none\.txt"):
        _ = missing.class_list


def test_data_is_held_out_only_if_no_set_is_named() -> None:
    assert config().holds_out
    scenes = {"kind": "scenes"}
    assert not config(data={"validation": scenes}).holds_out
    entry = {"name": "a", "task": "retrieval", "data": scenes}
    assert not config(evaluate=entry).holds_out
