"""Every mistake: one line that names the field or file, status 2, nothing created."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from distill.cli.app import main

Recipe = Callable[..., Path]
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a command which must fail, and returns its one line."""

    def call(*arguments: str | Path, stages_before: bool = False) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        lines = [line for line in printed.err.splitlines() if line.strip()]
        assert stages_before or len(lines) == 1, printed.err
        return lines[-1]

    return call


def draw(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (number, 2 * number, 90)).save(path)


def as_table(path: Path, text: str, **more: str) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return {"train": {"kind": "table", "path": str(path), **more}}


def test_a_missing_recipe(fails: Callable[..., str], tmp_path: Path) -> None:
    assert "none.yaml" in fails("train", tmp_path / "none.yaml")


def test_an_empty_recipe(fails: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert "empty.yaml" in fails("train", path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train": {"batchsize": 4}}, "train.batchsize"),
        ({"losses": {"kl_divergence": {"weight": 1, "temperature": 0}}}, "temperature"),
        ({"train": {"batch_size": 4000}}, "train.batch_size: 4000 .* 96|train.batch_size: 4000"),
        ({"student": {"image": {"backbone": "mobilenetv4_conv_smal"}}}, "mobilenetv4_conv_small"),
        ({"teacher": {"kind": "clip", "model": "x"}}, "teacher.kind"),
        ({"data": {"train": {"kind": "table", "path": "/nowhere/captions.csv"}}}, "captions.csv"),
    ],
)
def test_a_wrong_value_of_the_recipe(
    fails: Callable[..., str],
    recipe: Recipe,
    tmp_path: Path,
    changes: dict[str, Any],
    named: str,
) -> None:
    import re

    line = fails("train", recipe("wrong", **changes))
    assert re.search(named, line), line
    assert not (tmp_path / "wrong").exists()


def test_a_path_of_set_that_is_not_there(fails: Callable[..., str], recipe: Recipe) -> None:
    assert "train.speed" in fails("train", recipe(), "--set", "train.speed=3")


def test_a_teacher_folder_without_weights(
    fails: Callable[..., str], recipe: Recipe, teacher: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(teacher, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    line = fails("train", recipe("run", teacher={"model": str(bare)}))
    assert "model.safetensors" in line
    assert not (tmp_path / "run").exists()


def test_a_hub_out_of_reach_names_the_model_and_the_way_out(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path
) -> None:
    line = fails("train", recipe("run", teacher={"model": "nobody/nothing"}))
    assert "nobody/nothing" in line
    assert "folder" in line
    assert not (tmp_path / "run").exists()


def test_a_caption_column_that_does_not_exist(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path
) -> None:
    draw(tmp_path / "t", "a.png")
    data = as_table(tmp_path / "t" / "t.csv", "image,caption\na.png,x\n", caption_column="text")
    line = fails("train", recipe("run", data=data))
    assert "text" in line
    assert "caption" in line


@pytest.mark.parametrize(
    "text", ['image,caption\na.png,"broken\nb.png,x\n', "image,caption\na.png,one, two, three\n"]
)
def test_a_table_of_broken_quotes_or_shifted_columns(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path, text: str
) -> None:
    draw(tmp_path / "t", "a.png", "b.png")
    line = fails("train", recipe("run", data=as_table(tmp_path / "t" / "t.csv", text)))
    assert "t.csv" in line
    assert not (tmp_path / "run").exists()


def test_too_many_missing_pictures(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path
) -> None:
    draw(tmp_path / "t", "a.png")
    data = as_table(tmp_path / "t" / "t.csv", "image,caption\na.png,x\nb.png,y\n")
    assert "data.max_skipped" in fails("train", recipe("run", data=data))


def test_too_many_corrupt_pictures(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path
) -> None:
    names = [f"{number}.png" for number in range(40)]
    draw(tmp_path / "t", *names)
    for name in names[:3]:
        (tmp_path / "t" / name).write_bytes((tmp_path / "t" / name).read_bytes()[:30])
    text = "image,caption\n" + "".join(f"{name},number {name}\n" for name in names)
    data = as_table(tmp_path / "t" / "t.csv", text)
    for mode in ("cached", "live"):
        line = fails("train", recipe(mode, data=data, train={"teacher": mode}), stages_before=True)
        assert "data.max_skipped" in line, mode


def test_single_corrupt_pictures_are_skipped_counted_and_listed(
    recipe: Recipe, tmp_path: Path
) -> None:
    names = [f"{number:03d}.png" for number in range(120)]
    draw(tmp_path / "t", *names)
    (tmp_path / "t" / names[50]).write_bytes(b"no picture")
    text = "image,caption\n" + "".join(f"{name},number {name}\n" for name in names)
    data = as_table(tmp_path / "t" / "t.csv", text)
    for mode in ("cached", "live"):
        path = recipe(mode, data=data, train={"teacher": mode, "steps": 9})
        assert main(["train", str(path)]) == 0
        listed = (tmp_path / mode / "skipped.jsonl").read_text()
        assert listed.count(names[50]) >= 1
        assert len(listed.splitlines()) == 1, mode


@pytest.mark.parametrize("command", ["--data", "recipe"])
def test_a_class_folder_without_pictures(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path, command: str
) -> None:
    draw(tmp_path / "t", "cat/a.png")
    (tmp_path / "t" / "dog").mkdir()
    if command == "--data":
        line = fails("run", "--data", tmp_path / "t", "--out", tmp_path / "run")
    else:
        data = {"train": {"kind": "folder", "path": str(tmp_path / "t")}}
        line = fails("train", recipe("run", data=data))
    assert "dog" in line
    assert not (tmp_path / "run").exists()


def test_a_data_folder_without_pictures(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "notes.md").write_text("x")
    line = fails("run", "--data", tmp_path / "t", "--out", tmp_path / "run")
    assert str(tmp_path / "t") in line
    assert not (tmp_path / "run").exists()


def test_an_output_that_holds_another_recipes_run(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path
) -> None:
    first = recipe("first", train={"steps": 2})
    assert main(["train", str(first)]) == 0
    before = {file: file.read_bytes() for file in (tmp_path / "first").rglob("*") if file.is_file()}
    second = yaml.safe_load(first.read_text())
    second["train"]["learning_rate"] = 0.123
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(second))
    line = fails("train", other)
    assert "learning_rate" in line
    assert "--out" in line
    assert before == {
        file: file.read_bytes() for file in (tmp_path / "first").rglob("*") if file.is_file()
    }


def test_an_output_folder_with_other_files_is_refused(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    assert "thesis.tex" in fails("train", recipe("run"))
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"task": "zero_shot", "label_column": None}, "label"),
        ({"task": "retrieval", "caption_column": None}, "caption"),
        ({"task": "zero_shot", "classes": ["red circle"]}, "classes"),
    ],
)
def test_an_evaluation_set_without_what_its_task_asks_for(
    fails: Callable[..., str],
    recipe: Recipe,
    pictures: Path,
    tmp_path: Path,
    entry: dict[str, Any],
    named: str,
) -> None:
    columns = {name: entry.pop(name) for name in list(entry) if name.endswith("_column")}
    data = {"kind": "table", "path": str(pictures), **columns}
    path = recipe("run", evaluate={"name": "mine", "data": data, **entry})
    assert named in fails("run", path)
    assert not (tmp_path / "run").exists()


def test_a_wrong_student_is_found_before_scenes_are_rendered(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path
) -> None:
    path = recipe("run", data={"train": {"kind": "scenes"}}, student={"image": {"backbone": "x"}})
    assert "student.image.backbone" in fails("run", path)
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_width_than_a_student_that_keeps_its_own(
    fails: Callable[..., str], recipe: Recipe, teacher: Path, tmp_path: Path
) -> None:
    path = recipe("wide")
    values = yaml.safe_load(path.read_text())
    values["student"] = {
        "kind": "hf",
        "pretrained": False,
        "tokenizer": str(teacher),
        "image_processor": str(teacher),
        "config": {
            "model_type": "clip",
            "projection_dim": 64,
            "text_config": SMALL,
            "vision_config": {**SMALL, "image_size": 48, "patch_size": 16},
        },
    }
    path.write_text(yaml.safe_dump(values))
    line = fails("train", path)
    assert "64" in line
    assert "128" in line
    assert not (tmp_path / "wide").exists()


@pytest.mark.parametrize("override", ["train.device=cuda", "train.precision=fp16"])
def test_a_device_or_precision_that_is_not_to_be_had(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path, override: str
) -> None:
    for command in ("run", "cache"):
        assert override.split("=")[0] in fails(command, recipe("run"), "--set", override)
    assert not (tmp_path / "run").exists()


def test_evaluating_what_is_no_run(fails: Callable[..., str], tmp_path: Path) -> None:
    assert "recipe.yaml" in fails("eval", tmp_path)


def test_exporting_before_training(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path
) -> None:
    path = recipe("run")
    assert main(["cache", str(path)]) == 0
    assert "clip-distill train" in fails("export", tmp_path / "run")


def test_a_student_of_one_tower_to_start_from_is_named_before_anything_is_built(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path
) -> None:
    from distill.run.pipeline import run

    alone = {"kl_divergence": 0, "embedding_alignment": 1}
    seeing = run(
        recipe("seeing", student={"text": None}, losses=alone, train={"steps": 1}),
        stages=("cache", "train"),
    ).path
    start = {"kind": "towers", "start": str(seeing / "student")}
    line = fails("train", recipe("run", student=start, losses="mobileclip"))
    assert "needs both towers, but the student has one" in line
    assert not (tmp_path / "run").exists()


def test_a_tower_that_cannot_checkpoint_is_named_before_anything_is_built(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path
) -> None:
    student = {"image": {"backbone": "convit_tiny", "pretrained": False, "image_size": None}}
    line = fails("train", recipe("run", student=student, train={"gradient_checkpointing": True}))
    assert "train.gradient_checkpointing: the image tower, ConVit" in line
    assert not (tmp_path / "run").exists()


def test_a_cache_of_centre_crops_is_refused_before_anything_is_created(
    fails: Callable[..., str], recipe: Recipe, tmp_path: Path
) -> None:
    from distill.run.pipeline import run

    shared = str(tmp_path / "shared")
    centred = {
        "cache": {"folder": shared, "views": 1},
        "views": {"kind": "center", "scale": [1, 1]},
    }
    run(recipe("centred", **centred), stages=("cache",))
    line = fails("train", recipe("random", cache={"folder": shared, "views": 1}))
    assert "centre" in line
    assert "views.kind: center" in line
    assert "cache.folder" in line
    assert not (tmp_path / "random").exists()
