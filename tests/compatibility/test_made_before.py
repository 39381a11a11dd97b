"""What version 0.1.0 wrote still loads: recipes, run folders, caches, students and bundles."""

import json
import shutil
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from distill.recipe.load import load_recipe
from distill.recipe.stages import STAGES
from distill.run.digests import stage_digest
from distill.run.folder import RunFolder
from export.runtime.errors import BundleError
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.evaluate.encoder import StudentEncoder
    from distill.run.pipeline import run
    from distill.run.shards_stage import write_data
    from export.runtime import EdgeModel
    from students.model import load_student

MADE_BEFORE = Path(__file__).parent / "made_before"
RECIPES = ("default", "terms", "sources", "one_tower", "alone", "hf")
# The runs of forms/*.yaml, with the stages that each of them finished.
FORMS = {
    "ensemble": ("cache", "train", "evaluate", "export"),
    "one_tower": ("cache", "train", "evaluate", "export"),
    "hf": ("train", "evaluate"),
    "ensemble_stopped": ("cache",),
}
STUDENTS = ("ensemble/student", "ensemble_stopped/student_best", "one_tower/student", "hf/student")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy what was written, together with the demo's teacher, and work there."""
    shutil.copytree(MADE_BEFORE, tmp_path, dirs_exist_ok=True)
    with resources.as_file(resources.files("distill.demo")) as package:
        shutil.copytree(package / "teacher", tmp_path / "teacher")
    # A checkout does not keep times, and an index only counts if it is newer than its tar.
    for index in Path(tmp_path, "tars").glob("*.index"):
        index.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
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


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("written", [False, True])
def test_finished_stages_of_every_form_are_finished(world: Path, name: str, written: bool) -> None:
    recipe = Path("forms", f"{name.removesuffix('_stopped')}.yaml")
    given = Path("runs", name, "recipe.yaml") if written else recipe
    folder = RunFolder(load_recipe(given, overrides=[f"output=runs/{name}"]))
    folder.check()
    assert tuple(stage for stage in STAGES if folder.finished(stage)) == FORMS[name]


def test_a_stopped_ensemble_goes_on_to_the_same_student(world: Path) -> None:
    # Two teachers, int8 caches, tars with indices, Muon, a moving average, a frozen image tower.
    kept = [*Path("tars").iterdir(), *_files("runs/ensemble_stopped/cache")]
    before, log = _content(kept), Path("runs/ensemble_stopped/metrics.jsonl")
    lines = log.read_text().splitlines()
    run(Path("forms/ensemble.yaml"), out="runs/ensemble_stopped", stages=("cache", "train"))
    # It went on from the checkpoint: the first two steps are still those of version 0.1.0.
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert (log.read_text().splitlines()[:3], steps) == (lines, [1, 2, 2, 3, 4, 4])
    _assert_same_weights("runs/ensemble_stopped/student", "runs/ensemble/student")
    # Caches and indices were whole, so nothing was written again.
    assert _content([*Path("tars").iterdir(), *_files("runs/ensemble_stopped/cache")]) == before
    assert not Path("user_cache/clip-distill").exists()


def test_rendered_scenes_and_their_cache_train_the_same_student(world: Path) -> None:
    Path("runs/one_tower/student").rename("expected_student")
    folders = [*Path("runs/one_tower").glob("scenes-*"), Path("runs/one_tower/cache")]
    before = _content([file for folder in folders for file in _files(folder)])
    run(Path("forms/one_tower.yaml"), stages=("cache", "train"))
    _assert_same_weights("runs/one_tower/student", "expected_student")
    assert len(folders) == 2
    assert _content([file for folder in folders for file in _files(folder)]) == before


def test_tars_are_not_written_again(world: Path) -> None:
    before, record = _content(Path("tars").glob("*.tar*")), Path("tars/shards.json").read_bytes()
    write_data("pictures/few.csv", Path("tars"), per_shard=6, overrides=["data.workers=0"])
    assert len(before) == 4
    assert _content(Path("tars").glob("*.tar*")) == before
    assert Path("tars/shards.json").read_bytes() == record


@pytest.mark.parametrize("name", STUDENTS)
def test_students_of_every_form_embed_the_same(world: Path, name: str) -> None:
    texts = json.loads(Path("forms/expected.json").read_text())["texts"]
    student = StudentEncoder(load_student(f"runs/{name}"))
    _assert_embeds(name, student.encode_images(_pictures()), student.encode_texts(texts))


def test_bundles_without_text_or_labels_answer_the_same(world: Path) -> None:
    said = json.loads(Path("forms/expected.json").read_text())
    for name, classified in said["classified"].items():
        bundle = EdgeModel.load(Path("runs", name, "bundle"))
        named = [label for label, _ in classified]
        if name == "one_tower":
            texts, found = None, bundle.classify(_pictures()[0])
            with pytest.raises(BundleError, match="no text tower"):
                bundle.embed_texts(said["texts"])
        else:
            texts = bundle.embed_texts(said["texts"])
            found = bundle.classify(_pictures()[0], named)
            with pytest.raises(BundleError, match="no labels"):
                bundle.classify(_pictures()[0])
        _assert_embeds(f"{name}/bundle", bundle.embed_images(_pictures()), texts)
        assert [label for label, _ in found] == named
        shares = [share for _, share in classified]
        np.testing.assert_allclose([share for _, share in found], shares, atol=1e-5)


def _pictures() -> list[Image.Image]:
    files = sorted(Path("pictures/images").glob("*.png"))[:4]
    return [Image.open(file).convert("RGB") for file in files]


def _files(folder: str | Path) -> list[Path]:
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def _content(files: Iterable[Path]) -> dict[Path, tuple[int, bytes]]:
    """Return when each file was written, and what it holds."""
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def _assert_embeds(
    name: str, images: NDArray[np.float32] | None, texts: NDArray[np.float32] | None
) -> None:
    """Compare embeddings with those that version 0.1.0 computed."""
    expected = np.load("forms/expected.npz")
    for part, values in {"images": images, "texts": texts}.items():
        assert (values is None) == (f"{name}/{part}" not in expected)
        if values is not None:
            np.testing.assert_allclose(values, expected[f"{name}/{part}"], atol=1e-5)


def _assert_same_weights(found: str, expected: str) -> None:
    weights, others = (load_file(f"{folder}/model.safetensors") for folder in (found, expected))
    assert weights.keys() == others.keys()
    for name, values in others.items():
        np.testing.assert_allclose(weights[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
