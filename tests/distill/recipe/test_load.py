"""Recipes: one line for each mistake, the traps of YAML, and writing YAML."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from distill.recipe.base import kinds_of
from distill.recipe.config import RunConfig
from distill.recipe.defaults import default_values
from distill.recipe.load import load_recipe, resolve
from distill.recipe.schema import json_schema
from distill.recipe.sources import SOURCES
from distill.recipe.teachers import TEACHERS
from distill.recipe.text import to_yaml
from export.runtime.errors import RecipeError
from tests.distill.recipe.recipes import MINIMAL, mistakes

CONFIGS = Path(__file__).parents[3] / "configs"
FULL = """
seed: 7
teacher:
  - {model: a, weight: 2}
student: {kind: hf, config: {model_type: clip, n: [1, 2]}, pretrained: false, tokenizer: "3e-4"}
data:
  train:
    - {kind: table, path: a.csv, weight: 0.5}
    - {kind: folder, path: "2024-01-02", templates: ["{} – ein Bild", "no: {}", "two\nlines {}"]}
  validation: {kind: scenes, count: 10}
losses: {preset: default, contrastive: {weight: 0.2, schedule: {end: 1}}, kl_divergence: 2}
train: {steps: 1e3, learning_rate: 3e-4, gradient_clip: null}
evaluate:
  - name: "yes"
    task: zero_shot
    data: {kind: folder, path: x}
    classes: ["no", "a b", "null"]
  - {name: second, task: retrieval, data: {kind: table, path: b.tsv}}
"""


# --- mistakes in the file


def test_all_mistakes_at_once_each_with_its_path(recipe: Any) -> None:
    sources, teachers = ", ".join(kinds_of(SOURCES)), ", ".join(kinds_of(TEACHERS))
    text = """
    teacher: {kind: tf, model: 3, weight: 0}
    student: {kind: tower, width: 0, image: {backbone: 1}, colour: red}
    data:
      train:
        - {kind: tabel, path: "", weight: -1, image_colum: x}
        - {kind: folder}
        - {path: x}
    losses: {kl_divergence: {weight: 1, temperature: 0}, embedding_alignment: -1}
    train: {batch_size: -3, batch_sise: 4, device: gpu, betas: [0.9, 1.0], log_every: 1.5}
    """
    assert mistakes(recipe(text)) == [
        f"r.yaml: teacher.kind: found 'tf', must be one of {teachers}",
        "r.yaml: teacher.model: found 3, must be a text; put it in quotes",
        "r.yaml: teacher.weight: found 0, must be > 0",
        "r.yaml: student.kind: found 'tower', must be one of towers, hf; did you mean towers?",
        "r.yaml: student.width: found 0, must be ≥ 1",
        "r.yaml: student.image.backbone: found 1, must be a text; put it in quotes",
        (
            "r.yaml: student.colour: unknown key; allowed are kind, start, width, logit_scale, "
            "projection_start, projection_samples, image, text, model, config, pretrained, "
            "tokenizer, image_processor"
        ),
        (
            f"r.yaml: data.train.0.kind: found 'tabel', must be one of {sources}; "
            "did you mean table?"
        ),
        "r.yaml: data.train.0.path: found '', must be a text of at least one character",
        "r.yaml: data.train.0.weight: found -1, must be > 0",
        "r.yaml: data.train.0.image_colum: unknown key; did you mean image_column?",
        (
            "r.yaml: data.train.1.path: missing, must be given: the folder; the names of the "
            "folders in it are the classes"
        ),
        f"r.yaml: data.train.2.kind: missing, must be one of {sources}",
        "r.yaml: losses.kl_divergence.temperature: found 0, must be > 0",
        "r.yaml: losses.embedding_alignment: found -1, must be ≥ 0",
        "r.yaml: train.batch_size: found -3, must be ≥ 1",
        "r.yaml: train.betas.1: found 1.0, must be < 1",
        "r.yaml: train.device: found 'gpu', must be one of auto, cpu, cuda, mps; did you mean cpu?",
        "r.yaml: train.log_every: found 1.5, must be a whole number",
        "r.yaml: train.batch_sise: unknown key; did you mean batch_size?",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: true", "seed: found true, must be a whole number"),
        ("seed: '3'", "seed: found '3', must be a whole number"),
        ("seed: .nan", "seed: found nan, must be a whole number"),
        ("train: {learning_rate: .inf}", "train.learning_rate: found inf, must be a finite number"),
        ("train: {learning_rate: fast}", "train.learning_rate: found 'fast', must be a number"),
        ("train: 3", "train: found 3, must be a map"),
        ("train:", "train: found null, must be a map"),
        ("teacher: vit", "teacher: found 'vit', must be a teacher or a list of them"),
        ("data: {train: a.csv}", "data.train: found 'a.csv', must be a source or a list of them"),
        (
            "losses: defalt",
            (
                "losses: found 'defalt', must be one of default, clip_kd, tinyclip, mobileclip, "
                "dime; did you mean default?"
            ),
        ),
        (
            "losses: {preset: default, kl_divergence: [1]}",
            (
                "losses.kl_divergence: found [1], must be a weight, or a map with weight, schedule "
                "and the term's own fields"
            ),
        ),
        ("views: {flip: 1}", "views.flip: found 1, must be true or false"),
        ("views: {scale: 0.5}", "views.scale: found 0.5, must be a list"),
        ("views: {scale: [0.5]}", "views.scale.1: missing; the list needs an entry number 1"),
        (
            "export: {templates: [a photo]}",
            (
                "export.templates.0: found 'a photo', must be a text with {} where the name of the "
                "class goes"
            ),
        ),
        (
            "student: {model: x}",
            ("student.model: only kind: hf has this key; remove it or change the kind"),
        ),
        ("student: {image: {arguments: 3}}", "student.image.arguments: found 3, must be a map"),
        ("output: 2024-01-02", None),
        ("output: 3", "output: found 3, must be a text; put it in quotes"),
    ],
)
def test_one_mistake_is_one_line(recipe: Any, text: str, line: str | None) -> None:
    text = text if text.startswith("teacher") else MINIMAL + text
    if line is None:
        load_recipe(recipe(text))
    else:
        assert mistakes(recipe(text)) == [f"r.yaml: {line}"]


def test_checks_across_fields_come_second(recipe: Any) -> None:
    text = "train: {steps: 1, epochs: 1, batch_size: 0}"
    assert mistakes(recipe(MINIMAL + text)) == ["r.yaml: train.batch_size: found 0, must be ≥ 1"]
    across = "train: {steps: 1, epochs: 1}\nviews: {ratio: [2, 1]}"
    assert len(mistakes(recipe(MINIMAL + across))) == 2


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_recipe(recipe: Any, text: str) -> None:
    assert mistakes(recipe(text)) == [
        "r.yaml: the recipe is empty; `clip-distill recipe` prints one to start from"
    ]


def test_files_that_are_not_recipes(recipe: Any, tmp_path: Path) -> None:
    assert mistakes(tmp_path / "none.yaml")[0].startswith("none.yaml: there is no such recipe")
    with pytest.raises(RecipeError, match="a folder, not a recipe"):
        load_recipe(tmp_path)
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    assert len(mistakes(binary)) == 1
    assert mistakes(recipe("- a\n- b")) == ["r.yaml: found a list, must be a map of keys"]
    assert mistakes(recipe("a: [1,\nb: 2"))[0].startswith("r.yaml: line 2, column 5:")
    assert len(mistakes(recipe("a: 1\n---\nb: 2"))) == 1
    assert len(mistakes(recipe("a: !!python/object:os.system {}"))) == 1


def test_a_key_given_twice_is_a_mistake(recipe: Any) -> None:
    assert mistakes(recipe("seed: 1\ntrain: {steps: 3}\nseed: 2\n")) == [
        (
            "r.yaml: line 3, column 1: the key 'seed' is given twice, here and in line 1; keep one "
            "of them"
        )
    ]
    assert "is given twice" in mistakes(recipe("train: {steps: 3, steps: 4}"))[0]


@pytest.mark.parametrize("number", ["3e-4", "3E-4", "3.0e-4", "+3e-4", ".3e-3", "0.0003"])
def test_numbers_with_an_exponent_are_floats(recipe: Any, number: str) -> None:
    path = recipe(f"{MINIMAL}train: {{learning_rate: {number}}}")
    assert load_recipe(path).train.learning_rate == pytest.approx(3e-4, rel=1e-12)


def test_whole_numbers_may_have_an_exponent(recipe: Any) -> None:
    assert load_recipe(recipe(MINIMAL + "train: {steps: 1e5}")).train.steps == 100_000


# --- writing


@pytest.mark.parametrize("comments", [True, False])
@pytest.mark.parametrize("text", [MINIMAL, FULL])
def test_a_written_recipe_loads_as_the_same(recipe: Any, text: str, comments: bool) -> None:
    run = load_recipe(recipe(text))
    assert load_recipe(recipe(to_yaml(run, comments=comments))) == run


def test_default_recipe_loads_again_and_explains_every_field(recipe: Any) -> None:
    run = resolve(default_values(), where="command line")
    text = to_yaml(run, comments=True)
    assert load_recipe(recipe(text)) == run
    lines = text.splitlines()
    uncommented = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if re.match(r" *\w+:", line) and not before.strip().startswith("#")
    ]
    assert uncommented == []
    assert max(map(len, lines)) <= 104


def test_default_values_of_the_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    values = default_values(teacher="hf:a/b", student="fastvit_t8", output="runs/x")
    assert values == {
        "teacher": {"kind": "hf", "model": "a/b"},
        "student": {"kind": "towers", "image": {"backbone": "fastvit_t8"}},
        "output": "runs/x",
    }
    assert default_values(teacher="a/b")["teacher"] == {"kind": "hf", "model": "a/b"}
    assert default_values(teacher=str(folder))["teacher"] == {"kind": "hf", "model": str(folder)}
    assert default_values(student=str(folder))["student"] == {"kind": "hf", "model": str(folder)}
    assert default_values()["teacher"]["model"] == "openai/clip-vit-large-patch14"
    with pytest.raises(RecipeError, match="found the kind 'tf', must be one of hf, openai"):
        default_values(teacher="tf:a/b")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ViT-L/14", {"kind": "openai", "model": "ViT-L/14"}),
        ("ViT-L/14@336px", {"kind": "openai", "model": "ViT-L/14@336px"}),
        ("RN50", {"kind": "openai", "model": "RN50"}),
        ("a/ViT-B-32.pt", {"kind": "openai", "model": "a/ViT-B-32.pt"}),
        ("hf:RN50", {"kind": "hf", "model": "RN50"}),
        ("openai:b.bin", {"kind": "openai", "model": "b.bin"}),
        ("student:runs/a", {"kind": "student", "model": "runs/a"}),
        (
            "open_clip:ViT-B-32:laion2b_s34b_b79k",
            {"kind": "open_clip", "model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"},
        ),
        ("open_clip:hf-hub:a/b", {"kind": "open_clip", "model": "hf-hub:a/b"}),
        ("open_clip:a/folder", {"kind": "open_clip", "model": "a/folder"}),
    ],
)
def test_a_name_gives_the_kind_of_teacher(name: str, values: dict[str, str]) -> None:
    assert default_values(teacher=name)["teacher"] == values
    assert resolve(default_values(teacher=name), where="r").teachers[0].kind == values["kind"]


def test_the_folder_of_a_run_means_a_student(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    name = str(tmp_path)
    assert default_values(teacher=name)["teacher"] == {"kind": "student", "model": name}
    (tmp_path / "config.json").write_text("{}")
    assert default_values(teacher=name)["teacher"] == {"kind": "hf", "model": name}


def test_a_teacher_without_a_kind_is_from_transformers(
    recipe: Any,
) -> None:
    run = load_recipe(recipe("teacher: {model: x}"))
    assert run.teachers[0].kind == "hf"
    several = load_recipe(recipe("teacher: [{model: x}, {kind: openai, model: RN50}]"))
    assert [entry.kind for entry in several.teachers] == ["hf", "openai"]
    unknown, other_kinds = mistakes(recipe("teacher: {model: x, pretraned: y, quick_gelu: true}"))
    assert unknown.endswith("unknown key; allowed are kind, model, weight, dtype")
    assert "teacher.quick_gelu: only kind: open_clip has this key; remove it" in other_kinds
    known = "teacher: {kind: open_clip, model: x, quick_gelu: 1, pretraned: y}"
    assert mistakes(recipe(known)) == [
        "r.yaml: teacher.quick_gelu: found 1, must be true or false",
        "r.yaml: teacher.pretraned: unknown key; did you mean pretrained?",
    ]


def test_data_of_the_command_line_is_guessed(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("image,caption\na.png,b\n")
    assert default_values(data=str(table))["data"]["train"] == {"kind": "table", "path": str(table)}


# --- the files of configs/


def test_the_schema_in_configs_is_up_to_date() -> None:
    written = json.loads((CONFIGS / "schema.json").read_text(encoding="utf-8"))
    assert written == json_schema(), "configs/schema.json: run: make tables"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_of_configs_loads_and_says_how_to_run_it(path: Path) -> None:
    run = load_recipe(path)
    assert isinstance(run, RunConfig)
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert header.startswith("#")
    assert "clip-distill" in header or "make " in header
    assert run.folder.is_relative_to(f"runs/{path.stem}")
