"""From a recipe to a bundle: the whole way, and again."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from distill.data.scenes import class_names
from distill.pipeline import run
from distill.project import Project
from distill.recipe import load_recipe
from export.runtime.model import EdgeModel
from students.model import embed_images, load_student

Recipe = Callable[..., Path]


def test_images_and_captions_go_in_and_a_bundle_and_a_report_come_out(recipe: Recipe) -> None:
    folder = run(recipe()).path
    report = json.loads((folder / "report.json").read_text())
    assert report["format"] == 1
    assert [model["name"] for model in report["models"]] == ["teacher", "student"]
    tasks = {entry["task"]: entry for entry in report["sets"]}
    assert set(tasks) == {"zero_shot", "retrieval"}
    for entry in report["sets"]:
        assert entry["retained"]["teacher"] == entry["agreement"]["teacher"] == 1.0
        assert entry["samples"] > 0
    assert "held out" in (folder / "report.html").read_text()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(1, 9))
    assert set(lines[0]["terms"]) == {"kl_divergence", "embedding_alignment"}
    validations = [line for line in lines if "validation" in line]
    assert [line["step"] for line in validations] == [4, 8]
    assert set(validations[0]["validation"]["terms"]) == {"kl_divergence", "embedding_alignment"}

    student = load_student(folder / "student")
    model = EdgeModel.load(folder / "bundle")
    picture = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    assert student.image_processor is not None
    pixels = student.image_processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = embed_images(student.model, pixels).numpy()
    assert np.allclose(model.embed_images([picture]), expected, atol=1e-4)
    answers = model.classify(picture, class_names())
    assert sum(probability for _, probability in answers) == pytest.approx(1.0, abs=1e-5)


def test_the_same_command_again_skips_what_is_finished(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(train={"steps": 2, "epochs": None})
    folder = run(path).path
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    capsys.readouterr()
    run(path)
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()} == before
    printed = capsys.readouterr().err
    assert all(f"{stage}: finished before" in printed for stage in ("cache", "train"))


def test_a_batch_never_depends_on_the_number_of_workers(
    recipe: Recipe, assert_equal_weights: Callable[[Path, Path], None]
) -> None:
    folders = [
        run(recipe(f"workers{workers}", data={"workers": workers}), stages=("cache", "train")).path
        for workers in (0, 2)
    ]
    assert_equal_weights(*folders)


def test_cached_and_live_teachers_teach_the_same(
    recipe: Recipe, weights: Callable[[Path], dict[str, torch.Tensor]]
) -> None:
    cached = run(recipe("cached", cache={"dtype": "float32"}), stages=("cache", "train")).path
    live = run(recipe("live", train={"teacher": "live"}), stages=("train",)).path
    assert not (live / "cache").exists()
    ours, theirs = weights(cached), weights(live)
    for name, values in ours.items():
        assert torch.allclose(values, theirs[name], rtol=1e-3, atol=1e-4), name


def test_the_teacher_gets_no_gradient_and_lands_in_no_checkpoint(
    recipe: Recipe, teacher: Path
) -> None:
    path = recipe(train={"teacher": "live", "steps": 2})
    before = (teacher / "model.safetensors").read_bytes()
    folder = run(path, stages=("train",)).path
    assert (teacher / "model.safetensors").read_bytes() == before
    student = Project(load_recipe(path)).student.model
    names = set(student.state_dict())
    saved = list(folder.rglob("*.safetensors"))
    assert saved
    for file in saved:
        assert set(load_file(file)) <= names
    for file in folder.rglob("training.pt"):
        state = torch.load(file, weights_only=True)
        moments = [entry["exp_avg"].numel() for entry in state["optimizers"][0]["state"].values()]
        assert sum(moments) == sum(weight.numel() for weight in student.parameters())


def test_a_student_learns_without_a_teacher(recipe: Recipe) -> None:
    path = recipe(
        losses={"kl_divergence": 0, "embedding_alignment": 0, "contrastive": 1},
        train={"teacher": "absent"},
    )
    folder = run(path, stages=("train", "evaluate")).path
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]


def test_a_teacher_is_fine_tuned_by_the_same_loop_and_keeps_its_class(
    recipe: Recipe, teacher: Path
) -> None:
    path = recipe(
        student=None,
        losses={"kl_divergence": 0, "embedding_alignment": 0, "contrastive": 1},
        train={"teacher": "absent", "optimizer": "muon", "muon_learning_rate": 0.005},
    )
    values = path.read_text().replace("student: null", f"student: {{kind: hf, start: {teacher}}}")
    path.write_text(values)
    folder = run(path, stages=("train",)).path
    config = json.loads((folder / "student" / "config.json").read_text())
    assert config["model_type"] == "clip"
    second = run(
        recipe("second", teacher={"model": str(folder / "student")}, train={"steps": 1}),
        stages=("cache", "train"),
    )
    assert second.finished("train")
