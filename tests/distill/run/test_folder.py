"""Run folders: what counts as the same run, what is refused, and what is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from distill.data.sample import Skip
from distill.recipe.config import RunConfig
from distill.recipe.load import load_recipe, resolve
from distill.recipe.stages import STAGES
from distill.run.digests import stage_digest, stage_values
from distill.run.folder import RunFolder
from export.runtime.errors import RunError

SOURCE = {"kind": "table", "path": "a.csv"}
ENTRY = {"name": "a", "task": "retrieval", "data": SOURCE}
BASE: dict[str, Any] = {
    "teacher": {"model": "a/b"},
    "data": {"train": SOURCE, "validation": SOURCE},
    "losses": "default",
    "evaluate": ENTRY,
}


def config(path: Path | str = "runs/x", *overrides: str, **values: Any) -> RunConfig:
    return resolve({**BASE, "output": str(path), **values}, overrides=overrides, where="r.yaml")


def digests(run: RunConfig) -> list[str]:
    return [stage_digest(run, stage) for stage in STAGES]


def changed(*overrides: str, **values: Any) -> list[str]:
    """Return the stages whose digest another value changes."""
    pairs = zip(
        STAGES, digests(config()), digests(config("runs/x", *overrides, **values)), strict=True
    )
    return [stage for stage, before, after in pairs if before != after]


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run folder with a finished cache and training."""
    path = tmp_path / "run"
    folder = RunFolder(config(path))
    folder.open()
    (path / "cache").mkdir()
    folder.finish("cache")
    (path / "checkpoints").mkdir()
    (path / "student").mkdir()
    folder.finish("train")
    return path


def contents(path: Path) -> dict[str, str]:
    files = (file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_text() for file in files}


# --- digests


@pytest.mark.parametrize(
    "override",
    [
        "teacher.model=c",
        "teacher.dtype=float16",
        "data.train.path=b.csv",
        "data.train.weight=2",
        "views.flip=true",
        "views.seed=1",
        "cache.views=2",
        "cache.dtype=float32",
        "seed=1",
    ],
)
def test_what_the_cache_depends_on_changes_everything(override: str) -> None:
    assert changed(override) == list(STAGES)


@pytest.mark.parametrize(
    "override",
    [
        "student.image.backbone=resnet18",
        "losses={contrastive: 1}",
        "losses={preset: default, kl_divergence: 2}",
        "train.learning_rate=0.1",
        "train.steps=7",
    ],
)
def test_what_training_depends_on_leaves_the_cache(override: str) -> None:
    assert changed(override) == ["train", "evaluate", "export"]


MODES = ("cached", "live")


def test_a_live_teacher_is_another_training() -> None:
    before, after = (digests(config(losses="clip_kd", train={"teacher": mode})) for mode in MODES)
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_weights_of_several_teachers_leave_their_caches() -> None:
    models = [{"model": "a/b"}, {"model": "c/d"}]
    both, heavier = (
        digests(config(teacher=models)),
        digests(config("runs/x", "teacher.1.weight=3", teacher=models)),
    )
    assert [ours == theirs for ours, theirs in zip(both, heavier, strict=True)] == [True] + [
        False
    ] * 3


def test_a_single_teacher_is_in_the_digests_as_it_stands() -> None:
    # Folders and caches of earlier recipes go on only as long as these values stay.
    entry = {"kind": "hf", "model": "a/b", "weight": 1.0, "dtype": "float32"}
    for stage in STAGES:
        assert stage_values(config(), stage)["teacher"] == [entry]


def test_seed_leaves_a_cache_with_views_of_its_own() -> None:
    own = {"seed": 3}
    before, after = (digests(config(views=own, seed=seed)) for seed in (0, 1))
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_evaluation_and_export_change_alone() -> None:
    assert changed("evaluate.name=b") == ["evaluate"]
    assert changed("export.opset=20") == ["export"]


@pytest.mark.parametrize(
    "override",
    [
        "output=runs/y",
        "data.workers=9",
        "data.max_skipped=0.5",
        "cache.batch_size=9",
        "cache.shard_rows=9",
        "train.device=cpu",
        "train.log_every=9",
        "train.save_every=9",
    ],
)
def test_how_a_stage_runs_is_in_no_digest(override: str) -> None:
    assert changed(override) == []


def test_the_same_in_other_words() -> None:
    written_out = {
        "kl_divergence": {"weight": 0.1, "temperature": 1},
        "corpus_kl": {"weight": 0.5, "scale": 0.45},
        "corpus_contrastive": {"weight": 0.5, "scale": 0.45, "samples": 16384},
        "corpus_relational": {"weight": 1, "scale": 0.45},
    }
    assert changed(losses=written_out) == []
    assert changed(losses={"preset": "default"}) == []
    assert changed(teacher=[BASE["teacher"]]) == []
    assert changed(data={"train": [SOURCE], "validation": SOURCE}) == []
    assert changed(evaluate=[ENTRY]) == []
    assert changed(views={"seed": 0}) == []


def test_the_scale_that_two_towers_start_with_is_no_other_run_when_it_is_written() -> None:
    assert changed("student.logit_scale=14.285714285714285") == []
    assert changed("student.logit_scale=20.0") == ["train", "evaluate", "export"]


def test_edited_labels_are_other_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    values: dict[str, Any] = {
        "data": {"train": SOURCE, "labels": str(path)},
        "student": {"text": None},
        "losses": {"prompt_kl": 1},
    }
    path.write_text("cat\ndog\n")
    before = digests(config(**values))
    listed = {**values, "data": {**values["data"], "labels": ["cat", "dog"]}}
    assert digests(config(**listed)) == before
    path.write_text("cat\ncow\n")
    after = digests(config(**values))
    assert [old == new for old, new in zip(before, after, strict=True)] == [True] + [False] * 3


def test_validation_counts_only_where_it_is_measured_on() -> None:
    assert changed("data.validation.path=v.csv") == []
    with_it, other = (
        digests(config("runs/x", f"data.validation.path={name}", "evaluate=null"))
        for name in ("v.csv", "w.csv")
    )
    assert with_it[:2] == other[:2]
    assert with_it[2] != other[2]
    assert with_it[3] == other[3]


# --- opening


def test_check_creates_nothing(tmp_path: Path) -> None:
    RunFolder(config(tmp_path / "a" / "b")).check()
    assert list(tmp_path.iterdir()) == []


def test_open_writes_the_resolved_recipe(tmp_path: Path) -> None:
    run = config(tmp_path / "a" / "b")
    folder = RunFolder(run)
    folder.open()
    assert sorted(contents(folder.path)) == ["recipe.yaml", "state.json"]
    again = load_recipe(folder.path / "recipe.yaml")
    assert digests(again) == digests(run)
    assert again.terms == run.terms
    # Presets may change with a version; what was run may not.
    assert "preset: default" not in (folder.path / "recipe.yaml").read_text()
    RunFolder(again).check()
    assert not any(folder.finished(stage) for stage in STAGES)


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    RunFolder(config(tmp_path)).open()
    assert (tmp_path / "state.json").exists()


def test_leftovers_of_a_killed_run_are_ignored(tmp_path: Path) -> None:
    (tmp_path / ".state.json.tmp").write_text("{")
    RunFolder(config(tmp_path)).open()
    assert json.loads((tmp_path / "state.json").read_text())["stages"].keys() == {"cache", "train"}


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("x")
    with pytest.raises(RunError, match=r"not empty \(photo\.jpg\) and not a run folder.*--out"):
        RunFolder(config(tmp_path)).open()
    assert contents(tmp_path) == {"photo.jpg": "x"}


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("x")
    with pytest.raises(RunError, match="not a folder"):
        RunFolder(config(path)).open()
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder(config(path / "below")).open()
    assert path.read_text() == "x"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "stages": [1]}'])
def test_a_damaged_state_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(RunError, match=r"state\.json: damaged") as caught:
        RunFolder(config(tmp_path)).check()
    assert "\n" not in str(caught.value)


# --- the same recipe, and another one


def test_the_same_recipe_skips_what_is_finished(trained: Path) -> None:
    folder = RunFolder(config(trained))
    folder.open()
    assert [folder.finished(stage) for stage in STAGES] == [True, True, False, False]


def test_a_changed_evaluation_is_done_again_alone(trained: Path) -> None:
    folder = RunFolder(config(trained))
    (trained / "report.json").write_text("{}")
    folder.finish("evaluate")
    (trained / "bundle").mkdir()
    folder.finish("export")
    assert all(folder.finished(stage) for stage in STAGES)
    other = RunFolder(config(trained, "evaluate.name=b"))
    other.open()
    assert [other.finished(stage) for stage in STAGES] == [True, True, False, True]


def test_a_stage_whose_result_is_gone_is_not_finished(trained: Path) -> None:
    folder = RunFolder(config(trained))
    folder.finish("evaluate")
    assert not folder.finished("evaluate")
    (trained / "student").rmdir()
    assert not folder.finished("train")


@pytest.mark.parametrize(
    ("override", "phrase"),
    [
        ("teacher.model=c", "teacher.model was a/b and is now c"),
        ("data.train.path=b.csv", "data.train.path was a.csv and is now b.csv"),
        ("train.learning_rate=0.1", "train.learning_rate was 0.001 and is now 0.1"),
        ("losses={preset: default, contrastive: 1}", "losses.contrastive was null and is now"),
        ("views.scale=[0.5, 1]", "views.scale.0 was 0.7 and is now 0.5"),
    ],
)
def test_another_recipe_is_refused(trained: Path, override: str, phrase: str) -> None:
    before = contents(trained)
    with pytest.raises(RunError) as caught:
        RunFolder(config(trained, override)).open()
    message = str(caught.value)
    assert message.startswith(f"{trained}: the folder holds another recipe's run: {phrase}")
    assert "--out" in message
    assert "delete the folder" in message
    assert "\n" not in message
    assert contents(trained) == before


def test_a_stage_that_kept_nothing_may_change(tmp_path: Path) -> None:
    folder = RunFolder(config(tmp_path))
    folder.open()
    (tmp_path / "cache").mkdir()
    folder.finish("cache")
    other = RunFolder(config(tmp_path, "train.learning_rate=0.1"))
    other.open()
    assert other.finished("cache")
    with pytest.raises(RunError, match=r"teacher\.model"):
        RunFolder(config(tmp_path, "teacher.model=c")).check()


def test_how_it_runs_may_change(trained: Path) -> None:
    folder = RunFolder(config(trained, "train.device=cpu", "data.workers=0"))
    folder.open()
    assert "device: cpu" in (folder.path / "recipe.yaml").read_text()


def test_training_data_follows_what_is_held_out(tmp_path: Path) -> None:
    def run(evaluate: Any) -> RunFolder:
        return RunFolder(config(tmp_path, data={"train": SOURCE}, evaluate=evaluate))

    folder = run(None)
    folder.open()
    (tmp_path / "checkpoints").mkdir()
    # An unfinished training would go on with other pictures; a finished one is only measured.
    with pytest.raises(RunError, match=r"5 % of data\.train were held out, and are now trained on"):
        run(ENTRY).check()
    (tmp_path / "student").mkdir()
    folder.finish("train")
    run(ENTRY).open()
    # And what was trained on must not be called held out.
    saw_all = json.loads((tmp_path / "state.json").read_text())
    saw_all["stages"]["train"]["holds_out"] = False
    (tmp_path / "state.json").write_text(json.dumps(saw_all))
    with pytest.raises(RunError, match=r"5 % of data\.train were trained on, and are now held out"):
        run(None).check()


# --- skips


def test_skips_are_listed_once(tmp_path: Path) -> None:
    folder = RunFolder(config(tmp_path))
    folder.open()
    folder.add_skips([])
    assert not (tmp_path / "skipped.jsonl").exists()
    first, second = Skip("a.csv line 3", "4 fields, not 2", "row"), Skip("ü.jpg", "truncated")
    folder.add_skips([first])
    folder.add_skips([first, second])
    lines = (tmp_path / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"where": "a.csv line 3", "reason": "4 fields, not 2", "kind": "row"},
        {"where": "ü.jpg", "reason": "truncated", "kind": "picture"},
    ]


def test_skips_are_told_with_their_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Names with brackets are no markup.
    place = tmp_path / "a[" / "b]"
    folder = RunFolder(config(place))
    folder.open()
    capsys.readouterr()
    skips = [Skip(f"{number}.jpg", "truncated") for number in range(3)]
    folder.add_skips(skips[:2])
    folder.add_skips(skips)
    folder.add_skips(skips)
    assert capsys.readouterr().err.splitlines() == [
        f"skipped: 2 pictures or rows; the reasons are in {place}/skipped.jsonl",
        f"skipped: 1 more pictures or rows; the reasons are in {place}/skipped.jsonl",
    ]
