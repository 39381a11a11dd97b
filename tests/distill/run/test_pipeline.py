"""The pipeline: which stages run, on what, and that a run opens things once."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill.recipe.config import RunConfig
from distill.run.folder import RunFolder
from export.runtime.errors import RecipeError, RunError
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.run import pipeline
    from distill.run import project as project_module
    from distill.run.pipeline import build_cache, evaluate, export, run, train
    from distill.run.project import Project

Configure = Callable[..., RunConfig]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Replace the stages, and return the list of those that are called with their projects."""
    calls: list[tuple[str, Any]] = []

    def note(name: str) -> Callable[..., None]:
        return lambda project, *_, **options: calls.append((name, project))

    monkeypatch.setattr(pipeline, "_cache", note("cache"))
    monkeypatch.setattr(pipeline, "_train", note("train"))
    monkeypatch.setattr(pipeline, "evaluate_stage", note("evaluate"))
    monkeypatch.setattr(pipeline, "export_stage", note("export"))
    return calls


def names(calls: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in calls]


def test_all_stages_run_in_turn_on_one_project(
    configure: Configure, called: list[tuple[str, Any]]
) -> None:
    folder = run(configure())
    assert isinstance(folder, RunFolder)
    assert names(called) == ["cache", "train", "evaluate", "export"]
    assert len({id(project) for _, project in called}) == 1
    assert all(isinstance(project, Project) for _, project in called)


def test_only_the_stages_that_are_asked_for_run(
    configure: Configure, called: list[tuple[str, Any]]
) -> None:
    run(configure(), stages=("train",))
    assert names(called) == ["train"]


@pytest.mark.parametrize(
    "changes", [{"train": {"teacher": "live"}}, {"train": {"teacher": "absent"}}]
)
def test_a_teacher_that_is_not_cached_has_no_cache_stage(
    configure: Configure, called: list[tuple[str, Any]], changes: dict[str, Any]
) -> None:
    losses = {"contrastive": 1} if changes["train"]["teacher"] == "absent" else "clip_kd"
    run(configure(losses=losses, **changes), stages=("cache", "train"))
    assert names(called) == ["train"]


def test_other_processes_leave_evaluation_and_export_to_the_first(
    configure: Configure, called: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    run(configure())
    assert names(called) == ["cache", "train"]


@pytest.mark.parametrize(
    ("stages", "kept"),
    [(("cache", "train"), False), (("train", "export"), True), (("train",), False)],
)
def test_the_teacher_is_kept_for_later_stages_alone(
    configure: Configure,
    called: list[tuple[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    stages: Any,
    kept: bool,
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(
        pipeline, "_train", lambda project, keep_teacher: asked.append(keep_teacher)
    )
    run(configure(), stages=stages)
    assert asked == [kept]


def test_a_recipe_beside_names_is_refused(configure: Configure) -> None:
    with pytest.raises(RecipeError, match="either a recipe"):
        run(configure(), data="pictures/")


def test_a_recipe_file_takes_overrides_and_a_folder(
    tmp_path: Path, called: list[tuple[str, Any]]
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("teacher: {model: some/teacher}\n")
    run(path, out=tmp_path / "out", overrides=["seed=5"], stages=("train",))
    (_, project) = called[0]
    assert (project.config.folder, project.config.seed) == (tmp_path / "out", 5)


def test_nothing_can_be_cached_without_a_teacher(configure: Configure) -> None:
    config = configure(teacher=None, student={"width": 8}, losses={"contrastive": 1})
    with pytest.raises(RecipeError, match=r"^teacher: .*nothing to cache"):
        build_cache(config)
    assert not config.folder.exists()


def test_a_batch_is_shared_evenly_or_refused(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = SimpleNamespace(num_processes=3, is_main_process=True)
    monkeypatch.setattr(pipeline, "start_accelerator", lambda **_: three)
    with pytest.raises(RunError, match=r"^train\.batch_size: 8 .*3 processes"):
        train(configure())


def test_evaluation_and_export_need_a_run(tmp_path: Path) -> None:
    for stage in (evaluate, export):
        with pytest.raises(RunError, match="not a run folder"):
            stage(tmp_path)


@pytest.mark.slow
def test_one_run_opens_data_and_teacher_once(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    for name in ("load_teachers", "open_source", "build_student"):
        original = getattr(project_module, name)

        def counted(*arguments: Any, _name: str = name, _call: Any = original, **named: Any) -> Any:
            opened.append(_name)
            return _call(*arguments, **named)

        monkeypatch.setattr(project_module, name, counted)
    folder = run(configure()).path
    assert sorted(opened) == ["build_student", "load_teachers", "open_source"]
    assert (folder / "bundle" / "manifest.json").exists()
    # What is finished opens nothing.
    opened.clear()
    run(configure())
    assert opened == []


@pytest.mark.slow
def test_stages_one_by_one_give_what_a_whole_run_gives(
    configure: Configure, tmp_path: Path
) -> None:
    whole = run(configure(output=str(tmp_path / "whole"))).path
    config = configure(output=str(tmp_path / "single"))
    build_cache(config)
    train(config)
    evaluate(config.folder)
    export(config.folder)
    for name in ("student/model.safetensors", "bundle/image.onnx", "bundle/text.onnx"):
        assert (whole / name).read_bytes() == (config.folder / name).read_bytes(), name
    first, second = (
        json.loads((path / "report.json").read_text()) for path in (whole, config.folder)
    )
    assert first == second
