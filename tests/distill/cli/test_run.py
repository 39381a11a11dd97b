"""The commands on a recipe: what each one hands to the pipeline."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from distill.recipe.load import load_recipe
from tests.distill.cli.pieces import Pipeline, answer

ROOT = Path(__file__).parents[3]


def test_run_with_a_recipe(
    pipeline: Pipeline, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--out", "runs/a: b", "--set", "seed=3", "--set", "train.steps=5")
    assert answer(capsys, "run", recipe, *options) == (0, "", "")
    ((name, (config,), rest),) = pipeline.asked
    assert (name, rest) == ("run", {})
    assert (config.output, config.seed, config.train.steps) == ("runs/a: b", 3, 5)


def test_run_without_a_recipe(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("image,caption\n")
    options = (
        "--teacher",
        "hf:a/b",
        "--student",
        "resnet18",
        "--data",
        table,
        "--out",
        "runs/mine",
    )
    assert answer(capsys, "run", *options)[0] == 0
    ((_, (config,), _),) = pipeline.asked
    assert config.teachers[0].model == "a/b"
    assert config.student.image.backbone == "resnet18"
    assert config.train_sources[0].path == str(table)
    assert config.output == "runs/mine"


@pytest.mark.parametrize(("command", "function"), [("cache", "build_cache"), ("train", "train")])
def test_stages_with_a_recipe(
    pipeline: Pipeline,
    recipe: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    function: str,
) -> None:
    assert answer(capsys, command, recipe, "--set", "seed=3") == (0, "", "")
    assert pipeline.asked == [(function, (load_recipe(recipe, overrides=["seed=3"]),), {})]


def test_stages_with_a_run(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "eval", "runs/a", "--checkpoint", "best")[0] == 0
    assert answer(capsys, "export", "runs/a", "--out", "b/", "--set", "export.opset=20")[0] == 0
    assert pipeline.asked == [
        ("evaluate", (Path("runs/a"),), {"checkpoint": "best", "overrides": ()}),
        (
            "export",
            (Path("runs/a"),),
            {"out": Path("b"), "checkpoint": "last", "overrides": ["export.opset=20"]},
        ),
    ]


def test_recipe_prints_one_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = answer(capsys, "recipe", "--teacher", "a/b", "--student", "fastvit_t8")
    assert (status, err) == (0, "")
    path = tmp_path / "r.yaml"
    path.write_text(out, encoding="utf-8")
    config = load_recipe(path)
    assert config.teachers[0].model == "a/b"
    assert config.student.image.backbone == "fastvit_t8"
    assert out.startswith("# Seed of all random choices. [≥ 0]\nseed: 0\n")


def test_recipe_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = answer(capsys, "recipe", "--schema")
    assert status == 0
    assert out == (ROOT / "configs" / "schema.json").read_text(encoding="utf-8")


def stand_in(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, result: object = None
) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Put a function into a module that is not loaded; return the list of its calls."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def function(*arguments: Any, **options: Any) -> object:
        calls.append((arguments, options))
        return result

    replaced = ModuleType(module)
    setattr(replaced, name, function)
    monkeypatch.setitem(sys.modules, module, replaced)
    return calls


def test_cache_with_estimate_builds_nothing(
    pipeline: Pipeline,
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = stand_in(monkeypatch, "distill.run.estimate", "print_estimate")
    assert answer(capsys, "cache", recipe, "--estimate") == (0, "", "")
    assert calls == [((load_recipe(recipe),), {})]
    assert pipeline.asked == []


@pytest.mark.parametrize(("healthy", "status"), [(True, 0), (False, 1)])
def test_doctor_answers_by_its_status(
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    healthy: bool,
    status: int,
) -> None:
    calls = stand_in(monkeypatch, "distill.doctor.run", "run_doctor", healthy)
    assert answer(capsys, "doctor", recipe, "--set", "seed=3") == (status, "", "")
    assert calls == [((load_recipe(recipe, overrides=["seed=3"]),), {})]


def test_export_names_the_labels_of_a_file(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("Katze\ngroßer Hund\n", encoding="utf-8")
    assert answer(capsys, "export", "runs/a", "--labels", file)[0] == 0
    ((_, _, options),) = pipeline.asked
    assert options["overrides"] == ['export.labels=["Katze", "großer Hund"]']


def test_shards_and_demo_hand_on_their_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = stand_in(monkeypatch, "distill.run.shards_stage", "write_data")
    options = ("--out", "tars", "--size", "64", "--per-shard", "9", "--set", "data.workers=0")
    assert answer(capsys, "shards", "photos", *options)[0] == 0
    assert calls == [
        (
            ("photos", Path("tars")),
            {"size": 64, "per_shard": 9, "overrides": ["data.workers=0"]},
        )
    ]
    calls = stand_in(monkeypatch, "distill.demo.run", "run_demo")
    assert answer(capsys, "demo")[0] == 0
    assert answer(capsys, "demo", "--out", "d", "--set", "train.steps=4")[0] == 0
    assert calls == [
        ((Path("runs/demo"),), {"overrides": ()}),
        ((Path("d"),), {"overrides": ["train.steps=4"]}),
    ]
