"""What version 0.1.0 wrote still loads: recipes, run folders, caches, students and bundles."""

import json
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from distill.recipe.load import load_recipe
from distill.recipe.stages import STAGES
from distill.run.digests import stage_digest
from distill.run.folder import RunFolder
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.evaluate.encoder import StudentEncoder
    from distill.run.pipeline import run
    from export.runtime import EdgeModel
    from students.model import load_student

MADE_BEFORE = Path(__file__).parent / "made_before"
RECIPES = ("default", "terms", "sources", "one_tower", "alone", "hf")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy what was written, together with the demo's teacher, and work there."""
    shutil.copytree(MADE_BEFORE, tmp_path, dirs_exist_ok=True)
    with resources.as_file(resources.files("distill.demo")) as package:
        shutil.copytree(package / "teacher", tmp_path / "teacher")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("suffix", [".yaml", ".written.yaml"])
def test_recipes_load_and_keep_their_digests(world: Path, name: str, suffix: str) -> None:
    config = load_recipe(Path("recipes", name + suffix))
    expected = json.loads(Path("recipes/digests.json").read_text())[name]
    found = {stage: stage_digest(config, stage) for stage in STAGES}
    if name == "alone":
        # Its bundle has the templates of the first evaluation set, which version 0.1.0 forgot.
        assert found.pop("export") != expected.pop("export")
    assert found == expected


def test_a_finished_run_is_finished(world: Path) -> None:
    folder = RunFolder(load_recipe(Path("recipe.yaml")))
    folder.check()
    assert all(folder.finished(stage) for stage in STAGES)


def test_a_stopped_run_goes_on_to_the_same_student(world: Path) -> None:
    run(Path("recipe.yaml"), out="runs/stopped", stages=("cache", "train"))
    found, expected = (
        load_file(f"runs/{name}/student/model.safetensors") for name in ("stopped", "small")
    )
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    # The cache was complete, so nothing was added to it.
    held = sorted(path.name for path in Path("runs/stopped/cache").rglob("*.npy"))
    assert held == sorted(path.name for path in Path("runs/small/cache").rglob("*.npy"))


def test_students_and_bundles_say_the_same(world: Path) -> None:
    said = json.loads(Path("expected.json").read_text())
    expected = np.load("expected.npz")
    files = sorted(Path("pictures/images").glob("*.png"))[:4]
    pictures = [Image.open(file).convert("RGB") for file in files]
    student = StudentEncoder(load_student("runs/small/student"))
    bundle = EdgeModel.load(Path("runs/small/bundle"))
    found = {
        "student_images": student.encode_images(pictures),
        "student_texts": student.encode_texts(said["texts"]),
        "bundle_images": bundle.embed_images(pictures),
        "bundle_texts": bundle.embed_texts(said["texts"]),
    }
    for name, values in found.items():
        assert values is not None
        np.testing.assert_allclose(values, expected[name], atol=1e-5, err_msg=name)
    labels, probabilities = zip(*said["classified"], strict=True)
    classified = bundle.classify(pictures[0])
    assert [label for label, _ in classified] == list(labels)
    np.testing.assert_allclose([share for _, share in classified], probabilities, atol=1e-5)
