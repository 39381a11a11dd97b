"""From a recipe to a bundle: the whole way, and again."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.data.scenes import class_names, render_scenes
from distill.recipe.load import load_recipe
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from safetensors.torch import load_file

    from distill.run.pipeline import evaluate, run
    from distill.run.project import Project
    from export.runtime.model import EdgeModel
    from students.encoder import embed_images
    from students.model import load_student

Recipe = Callable[..., Path]
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_is_measured_may_change_and_change_back(recipe: Recipe, pictures: Path) -> None:
    path = recipe(train={"steps": 2})
    folder = run(path).path
    first = (folder / "report.json").read_text()
    table = {"kind": "table", "path": str(pictures)}
    other = recipe(
        train={"steps": 2}, evaluate={"name": "mine", "task": "retrieval", "data": table}
    )
    weights = (folder / "student" / "model.safetensors").stat().st_mtime_ns
    run(other)
    report = json.loads((folder / "report.json").read_text())
    assert [entry["name"] for entry in report["sets"]] == ["mine"]
    run(recipe(train={"steps": 2}))
    assert (folder / "report.json").read_text() == first
    assert (folder / "student" / "model.safetensors").stat().st_mtime_ns == weights


def test_the_best_students_report_stands_apart(recipe: Recipe) -> None:
    folder = run(recipe(train={"steps": 4}), stages=("cache", "train", "evaluate")).path
    before = (folder / "report.json").read_text()
    evaluate(folder, checkpoint="best")
    assert (folder / "report.json").read_text() == before
    assert "chosen by" in (folder / "best" / "report.html").read_text()


def test_few_captions_and_many_pictures_without_any(recipe: Recipe, tmp_path: Path) -> None:
    table = render_scenes(tmp_path / "few", count=200, seed=5, captioned=3)
    train = {"kind": "table", "path": str(table), "label_column": None}
    path = recipe(data={"train": train}, train={"steps": 4, "batch_size": 8, "validate_every": 2})
    folder = run(path, stages=("cache", "train")).path
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    validations = [line["validation"] for line in lines if "validation" in line]
    assert len(validations) == 2
    assert all(entry["terms"]["kl_divergence"] > 0 for entry in validations)


def test_runs_of_other_precision_in_one_process(recipe: Recipe) -> None:
    run(recipe("first", train={"steps": 1}), stages=("cache", "train"))
    path = recipe("second", train={"steps": 2, "precision": "bf16"})
    folder = run(path, stages=("cache", "train")).path
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(line["loss"] > 0 for line in lines if "loss" in line)
    assert load_student(folder / "student").model.dtype == torch.float32


def test_names_may_be_paths_in_python(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    text = {"model": None, "tokenizer": str(teacher), "pretrained": False, "config": TEXT}
    image = {"backbone": "test_vit", "pretrained": False, "image_size": 48}
    fast = ["train.epochs=1", "train.batch_size=16", "data.workers=0", "cache.views=1"]
    fast += [f"student.image={json.dumps(image)}", f"student.text={json.dumps(text)}"]
    folder = run(
        teacher=teacher, data=pictures, out=tmp_path / "run", overrides=fast, stages=("train",)
    )
    assert folder.finished("train")
