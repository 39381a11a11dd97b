"""The command: on a healthy recipe, and on recipes with one thing wrong each."""

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from distill.cli.app import main
from distill.data.scenes import render_scenes
from distill.recipe.load import load_recipe
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.run.pipeline import build_cache

ROOT = Path(__file__).parents[3]
TEACHER = Path(str(resources.files("distill.demo"))) / "teacher"
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}

Doctor = Callable[..., tuple[int, dict[str, str]]]


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the table of 96 scenes, of the kind that the demo's teacher knows."""
    return render_scenes(tmp_path_factory.mktemp("doctor") / "scenes", count=96, seed=5)


@pytest.fixture
def write(tmp_path: Path, table: Path) -> Callable[..., Path]:
    """Return a function that writes a healthy recipe, with whole sections replaced or merged."""

    def write_recipe(**changes: Any) -> Path:
        values: dict[str, Any] = {
            "output": str(tmp_path / "run"),
            "teacher": {"model": str(TEACHER)},
            "student": {
                "image": {"backbone": "test_vit", "pretrained": False, "image_size": 48},
                "text": {
                    "model": None,
                    "config": TEXT,
                    "tokenizer": str(TEACHER),
                    "pretrained": False,
                    "context_length": 24,
                },
            },
            "data": {"train": {"kind": "table", "path": str(table)}, "workers": 0},
            "cache": {"views": 2},
            "losses": {"kl_divergence": 1, "contrastive": 1},
            "train": {"batch_size": 64, "steps": 20, "warmup_steps": 2, "device": "cpu"},
        }
        for key, change in changes.items():
            both = isinstance(change, dict) and isinstance(values[key], dict) and key != "losses"
            values[key] = {**values[key], **change} if both else change
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write_recipe


@pytest.fixture
def doctor(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Return a function that gives the status of a recipe, and what was said by what it is about.

    What is fine is left out; what is said several times of one thing is joined.
    """

    def call(*options: str, **changes: Any) -> tuple[int, dict[str, str]]:
        status = main(["doctor", str(write(**changes)), *options])
        said: dict[str, str] = {}
        *lines, last = capsys.readouterr().out.splitlines()
        assert last.startswith("doctor: ")
        for line in lines:
            level, about, sentence = line[:7].strip(), *line[7:].split(": ", 1)
            assert level in {"ok", "note", "wrong"}
            if level != "ok":
                said[about] = f"{said.get(about, '')}{level}: {sentence}"
        return status, said

    return call


def everything(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def changed_table(table: Path, folder: Path, change: Callable[[list[dict[str, str]]], None]) -> Any:
    """Rewrite the scenes' table with changed rows; return the section that names it."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    path = folder / "changed.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "caption", "label"])
        writer.writeheader()
        writer.writerows(rows)
    return {"train": {"kind": "table", "path": str(path), "image_root": str(table.parent)}}


def test_a_healthy_recipe(
    write: Callable[..., Path], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write()
    before = everything(tmp_path), everything(table.parent)
    assert main(["doctor", str(recipe)]) == 0
    # No run folder and no cache: nothing is written.
    assert (everything(tmp_path), everything(table.parent)) == before
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[-1] == "doctor: nothing is wrong"
    assert all(line.startswith("ok ") for line in lines[:-1])
    (matching,) = [line for line in lines if "teacher's matching" in line]
    # Two captions are the same.
    assert "of 64 pairs, against 1.7% by chance" in matching
    assert err == "doctor: opening data and models, writing nothing\n"


def test_a_second_visit_says_the_same(doctor: Doctor) -> None:
    wrong = {"losses": {"contrastive": 1}, "train": {"batch_size": 16}}
    assert doctor(**wrong) == doctor(**wrong)


def test_overrides_work_as_in_other_commands(doctor: Doctor) -> None:
    status, said = doctor("--set", "train.batch_size=32")
    assert status == 1
    assert said.keys() == {"batch"}
    assert "train.batch_size is 32" in said["batch"]


def test_shuffled_captions(doctor: Doctor, table: Path, tmp_path: Path) -> None:
    def shuffle(rows: list[dict[str, str]]) -> None:
        captions = [row["caption"] for row in rows]
        random.Random(0).shuffle(captions)
        for row, caption in zip(rows, captions, strict=True):
            row["caption"] = caption

    status, said = doctor(data=changed_table(table, tmp_path, shuffle))
    assert (status, said.keys()) == (1, {"teacher's matching"})
    assert "no better than chance" in said["teacher's matching"]


def test_captions_that_are_file_names(doctor: Doctor, table: Path, tmp_path: Path) -> None:
    def name(rows: list[dict[str, str]]) -> None:
        for row in rows:
            row["caption"] = row["image"]

    status, said = doctor(data=changed_table(table, tmp_path, name))
    assert status == 1
    assert "file names or numbers" in said["captions"]


def test_captions_and_pictures_that_are_all_alike(doctor: Doctor, tmp_path: Path) -> None:
    for number in range(80):
        Image.new("RGB", (48, 48), (128, 128, 128)).save(tmp_path / f"{number}.png")
    rows = "".join(f"{number}.png,a photo\n" for number in range(80))
    (tmp_path / "t.csv").write_text(f"image,caption\n{rows}")
    data = {"train": {"kind": "table", "path": str(tmp_path / "t.csv")}}
    status, said = doctor(data=data)
    assert status == 1
    assert "'a photo'" in said["captions"]
    assert "synthetic loader" in said["pictures"]


def test_captions_that_are_too_long(doctor: Doctor, table: Path, tmp_path: Path) -> None:
    def lengthen(rows: list[dict[str, str]]) -> None:
        for row in rows[::3]:
            row["caption"] += ", which stands on a dark ground" * 6

    data = changed_table(table, tmp_path, lengthen)
    status, said = doctor(data=data)
    # The teacher reads 32 tokens and the student 24, each by its own count.
    assert status == 1
    assert said.keys() == {"teacher's context", "student's context"}
    assert "32 tokens" in said["teacher's context"]
    assert "24 tokens" in said["student's context"]
    assert "student.text.context_length" in said["student's context"]


def test_a_cache_for_other_views(
    doctor: Doctor, write: Callable[..., Path], tmp_path: Path
) -> None:
    build_cache(load_recipe(write(cache={"views": 1})))
    # A run folder would refuse it by itself.
    shutil.move(tmp_path / "run" / "cache", tmp_path / "cache")
    shutil.rmtree(tmp_path / "run")
    folder = str(tmp_path / "cache")
    assert doctor(cache={"views": 1, "folder": folder}) == (0, {})
    status, said = doctor(cache={"views": 2, "folder": folder})
    assert (status, said.keys()) == (1, {"cache"})
    assert "cache.views is 1, the recipe asks for 2" in said["cache"]


def broken_teacher(folder: Path) -> Path:
    """Return a copy of the demo's teacher that forgets to divide pixels by 255."""
    broken = folder / "broken"
    shutil.copytree(TEACHER, broken)
    settings = json.loads((broken / "preprocessor_config.json").read_text())
    settings["rescale_factor"] = 1.0
    (broken / "preprocessor_config.json").write_text(json.dumps(settings))
    return broken


def test_each_of_several_teachers_is_examined(doctor: Doctor, tmp_path: Path) -> None:
    two = [{"model": str(TEACHER)}, {"model": str(TEACHER), "dtype": "bfloat16", "weight": 2}]
    assert doctor(teacher=two) == (0, {})
    two[1]["model"] = str(broken_teacher(tmp_path))
    status, said = doctor(teacher=two)
    assert status == 1
    assert "rescale_factor" in said["teacher.1's mean and std"]
    assert not any(about.startswith("teacher.0") for about in said)


def test_a_teacher_that_sees_another_range(doctor: Doctor, tmp_path: Path, table: Path) -> None:
    broken = broken_teacher(tmp_path)
    status, said = doctor(teacher={"model": str(broken)})
    assert status == 1
    assert "rescale_factor" in said["teacher's mean and std"]


def test_a_student_with_other_preprocessing_than_its_weights(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    settings = json.loads((TEACHER / "preprocessor_config.json").read_text())
    settings |= {"image_mean": [0.9, 0.9, 0.9], "image_std": [0.5, 0.5, 0.5]}
    (other / "preprocessor_config.json").write_text(json.dumps(settings))
    # The demo's teacher is trained further, with its own image processor and with another one.
    for processor, status in ((None, 0), (str(other), 1)):
        student = {"kind": "hf", "model": str(TEACHER), "image_processor": processor}
        values = yaml.safe_load(write().read_text()) | {"student": student}
        path = tmp_path / "hf.yaml"
        path.write_text(yaml.safe_dump(values))
        assert main(["doctor", str(path)]) == status
        out = capsys.readouterr().out
        assert ("wrong  student's mean and std: they are 0.9/0.9/0.9" in out) == bool(status)


def test_a_machine_that_is_too_small(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.doctor.run.free_memory", lambda device: 1000)
    status, said = doctor()
    assert (status, said.keys()) == (1, {"memory"})
    assert "1.0 kB are free on cpu" in said["memory"]


# --- what recipes may be like


def test_a_recipe_without_a_teacher(doctor: Doctor) -> None:
    student = {"width": 16}
    status, said = doctor(teacher=None, student=student, losses={"contrastive": 1})
    assert (status, said) == (0, {})


def test_pictures_alone_and_a_student_of_one_tower(
    doctor: Doctor, table: Path, tmp_path: Path
) -> None:
    status, said = doctor(
        data={"train": {"kind": "images", "path": str(table.parent / "images")}},
        student={"text": None},
        losses={"embedding_alignment": 1},
    )
    assert (status, said) == (0, {})


def test_several_sources_and_scenes_that_are_not_rendered(
    doctor: Doctor, table: Path, tmp_path: Path
) -> None:
    scenes = {"kind": "scenes", "count": 5000, "seed": 9}
    status, said = doctor(data={"train": [{"kind": "table", "path": str(table)}, scenes]})
    assert (status, said.keys()) == (0, {"data"})
    assert "procedural" in said["data"]
    assert not (tmp_path / "run").exists()


# --- what cannot be opened


def test_what_cannot_be_opened_is_wrong(doctor: Doctor, tmp_path: Path) -> None:
    status, said = doctor(data={"train": {"kind": "table", "path": str(tmp_path / "no.csv")}})
    assert (status, said.keys()) == (1, {"data"})
    status, said = doctor(teacher={"model": str(tmp_path)})
    assert (status, said.keys()) == (1, {"teacher"})
    lost = {"train": {"kind": "table", "path": str(tmp_path / "no.csv")}}
    status, said = doctor(data=lost, teacher={"model": str(tmp_path)})
    assert (status, said.keys()) == (1, {"data", "teacher"})
    status, said = doctor(train={"batch_size": 500})
    assert (status, said.keys()) == (1, {"length"})
    assert "larger than the data set" in said["length"]


def test_a_recipe_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path / "none.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no such recipe" in line


@pytest.mark.slow
def test_ctrl_c(write: Callable[..., Path], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "distill", "doctor", str(write())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stderr is not None
    assert process.stdout is not None
    first = process.stderr.readline()
    assert first.startswith("doctor: ")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "stopped; the doctor writes nothing\n")
    assert not (tmp_path / "run").exists()
