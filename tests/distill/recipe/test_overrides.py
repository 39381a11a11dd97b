"""`--set`: changing any place of a recipe from the command line."""

import json
from typing import Any

import pytest

from distill.recipe.load import load_recipe, resolve
from tests.distill.recipe.recipes import MINIMAL, mistakes


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.batch_size=64", lambda c: c.train.batch_size == 64),
        ("train.learning_rate=3e-4", lambda c: c.train.learning_rate == 3e-4),
        ("output=runs/x=y", lambda c: c.output == "runs/x=y"),
        ("train.gradient_clip=", lambda c: c.train.gradient_clip is None),
        ("data.train.path=b", lambda c: c.data.train.path == "b"),
        ("evaluate.1.name=x", lambda c: c.evaluate[1].name == "x"),
        ("evaluate.0.data.path=x", lambda c: c.evaluate[0].data.path == "x"),
        ("evaluate.0.classes.1=x", lambda c: c.evaluate[0].classes == ("a", "x")),
        ("evaluate=null", lambda c: c.evaluate is None),
        ("student.image.arguments.drop_rate=0.1", lambda c: c.student.image.arguments["drop_rate"]),
        ("losses.kl_divergence.temperature=2", lambda c: "kl_divergence" in c.terms),
        ("losses=default", lambda c: c.losses == "default"),
        (
            "data.train=[{kind: table, path: x}, {kind: folder, path: y}]",
            lambda c: [s.path for s in c.train_sources] == ["x", "y"],
        ),
    ],
)
def test_set_reaches_every_place(recipe: Any, override: str, read: Any) -> None:
    text = (
        MINIMAL + "data: {train: {kind: table, path: a}}\nlosses: {preset: default}\n"
        "evaluate:\n"
        "  - {name: a, task: zero_shot, data: {kind: folder, path: a}, classes: [a, b]}\n"
        "  - {name: b, task: zero_shot, data: {kind: folder, path: b}}\n"
    )
    assert read(load_recipe(recipe(text), overrides=[override]))


def test_set_on_sections_that_the_recipe_leaves_out(recipe: Any) -> None:
    overrides = ["teacher.model=x", "data.train.count=5", "student.image.backbone=resnet18"]
    run = load_recipe(recipe("seed: 1"), overrides=overrides)
    assert run.teachers[0].model == "x"
    assert run.data.train.count == 5
    assert run.student.image.backbone == "resnet18"


def test_the_last_set_wins(recipe: Any) -> None:
    path = recipe(MINIMAL)
    assert load_recipe(path, overrides=["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train", "--set train: must be a dotted path and a value, a.b=value"),
        (".a=1", "--set .a=1: must be a dotted path and a value, a.b=value"),
        ("train.stepz=3", "--set train.stepz: unknown key; did you mean steps?"),
        ("trian.steps=3", "--set trian: unknown key; did you mean train?"),
        ("train.batch_size=-3", "--set train.batch_size: found -3, must be ≥ 1"),
        (
            "seed.x=1",
            (
                "--set seed.x: seed is 0, which has nothing inside to set; replace it whole, "
                "--set seed=…"
            ),
        ),
        (
            "losses.kl_divergence=1",
            (
                "--set losses.kl_divergence: losses is default, which has nothing inside to set; "
                "replace it whole, --set losses=…"
            ),
        ),
        (
            "data.train.0.path=x",
            "--set data.train.0.path: data.train is a single entry, not a list; remove the 0",
        ),
        (
            "teacher.model=x",
            (
                "--set teacher.model: teacher is a list of 1; pick an entry by its number, as in "
                "teacher.0.model"
            ),
        ),
        (
            "teacher.1.model=x",
            (
                "--set teacher.1.model: teacher has no entry 1; its list has 1, the first is 0, "
                "and --set teacher=[…] replaces the list"
            ),
        ),
        (
            "data.validation.path=x",
            (
                "--set data.validation.path: data.validation is null, which has nothing inside to "
                "set; replace it whole, --set data.validation=…"
            ),
        ),
    ],
)
def test_set_on_a_path_that_leads_nowhere(recipe: Any, override: str, line: str) -> None:
    text = "teacher: [{model: a}]\ndata: {train: {kind: table, path: a}, validation: null}\n"
    assert mistakes(recipe(text), override) == [line]


def test_set_with_broken_yaml(recipe: Any) -> None:
    (line,) = mistakes(recipe(MINIMAL), "train={steps: 3")
    assert line.startswith("--set train: line 1")


def test_mistakes_of_file_and_command_line_are_told_apart(recipe: Any) -> None:
    path = recipe(MINIMAL + "train: {batch_size: 0}")
    assert mistakes(path, "cache.views=0") == [
        "--set cache.views: found 0, must be ≥ 1",
        "r.yaml: train.batch_size: found 0, must be ≥ 1",
    ]


def test_an_override_changes_nothing_that_was_given() -> None:
    values: dict[str, Any] = {"teacher": {"model": "x"}, "train": {"steps": 3}}
    before = json.dumps(values)
    assert resolve(values, overrides=["train.steps=4"], where="r").train.steps == 4
    assert json.dumps(values) == before


def test_set_changes_one_use_of_an_alias(recipe: Any) -> None:
    entry = "task: zero_shot, data: {kind: folder, path: x}"
    text = (
        f"{MINIMAL}evaluate:\n  - {{name: a, {entry}, classes: &classes [a, b]}}\n"
        f"  - {{name: b, {entry}, classes: *classes}}\n"
    )
    run = load_recipe(recipe(text), overrides=["evaluate.0.classes.0=c"])
    assert [entry.classes for entry in run.evaluation_entries] == [("c", "b"), ("a", "b")]


def test_a_recipe_that_contains_itself(recipe: Any) -> None:
    assert len(mistakes(recipe("train: &a {b: *a}"))) == 1
