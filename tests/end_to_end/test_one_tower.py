"""Students of one tower: trained, evaluated with the teacher's other tower, exported, used."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.cli import app as cli
from distill.data.sample import open_image
from distill.data.tables.table import open_table
from distill.recipe.load import load_recipe
from distill.recipe.teachers import HfTeacherSection
from export.runtime.errors import ExportError
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from open_clip import OPENAI_IMAGENET_TEMPLATES
    from safetensors.torch import load_file, save_file

    from distill.evaluate.encoder import TeacherEncoder
    from distill.run.pipeline import evaluate, export, run
    from distill.run.project import Project
    from distill.teacher._frozen import FrozenTeacher
    from distill.teacher.load import load_teacher
    from export.runtime import EdgeModel
    from students.encoder import logit_scale
    from students.model import load_student

Recipe = Callable[..., Path]
# The terms that one tower can learn by; the last is for pictures alone.
TERMS = (
    "embedding_alignment",
    "relational",
    "corpus_kl",
    "corpus_contrastive",
    "corpus_relational",
    "prompt_kl",
)
LABELS = ("red circle", "blue square", "green star")
FAST = {
    "student.image": {"backbone": "test_vit", "pretrained": False, "image_size": 48},
    "cache.views": 2,
    "data.workers": 0,
    "train.epochs": 2,
    "train.batch_size": 16,
    "train.warmup_steps": 1,
}


@pytest.fixture(scope="module")
def unlabelled(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of pictures about which nothing is said, some of them in a folder inside."""
    folder = tmp_path_factory.mktemp("unlabelled") / "pictures"
    (folder / "more").mkdir(parents=True)
    with pictures.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            place = folder / "more" if number % 2 else folder
            shutil.copy(pictures.parent / row["image"], place / f"p{number}.png")
    return folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of labels."""
    path = tmp_path_factory.mktemp("labels") / "labels.txt"
    path.write_text("\n".join(LABELS))
    return path


@pytest.fixture
def words_of(teacher: Path) -> TeacherEncoder:
    """Return the teacher as something that embeds pictures and texts."""
    loaded = load_teacher(HfTeacherSection(model=str(teacher)))
    return TeacherEncoder(loaded)


def by_openais_templates(words_of: TeacherEncoder, labels: Sequence[str]) -> np.ndarray:
    """Embed labels as CLIP's authors do: the mean over the templates, normalised."""
    rows = []
    for label in labels:
        prompts = words_of.encode_texts([make(label) for make in OPENAI_IMAGENET_TEMPLATES])
        assert prompts is not None
        mean = prompts.mean(axis=0)
        rows.append(mean / np.linalg.norm(mean))
    return np.stack(rows)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def short_way(
    unlabelled: Path, labels: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the run folder of the command that the README shows, with small values."""
    out = tmp_path_factory.mktemp("short") / "run"
    changes = [item for key, value in FAST.items() for item in ("--set", f"{key}={value}")]
    named = ("--teacher", teacher, "--data", unlabelled, "--labels", labels, "--out", out)
    assert cli.main(["run", *map(str, named), *changes]) == 0
    return out


@pytest.mark.slow
def test_without_labels_it_says_that_nothing_could_be_measured(
    unlabelled: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [item for key, value in FAST.items() for item in ("--set", f"{key}={value}")]
    named = ("--teacher", teacher, "--data", unlabelled / "more", "--out", tmp_path / "run")
    assert cli.main(["run", *map(str, named), *changes]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "Nothing could be measured: the data has neither labels nor captions" in said
    assert "Nothing could be measured" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_pictures_and_words_go_in_and_a_classifier_comes_out(
    short_way: Path, unlabelled: Path, words_of: TeacherEncoder
) -> None:
    student = load_student(short_way / "student")
    assert student.tokenizer is None
    assert (short_way / "bundle" / "labels.npy").exists()
    assert not (short_way / "bundle" / "text.onnx").exists()
    model = EdgeModel.load(short_way / "bundle")
    assert model.labels == LABELS
    # The bundle has the teacher's vectors, and answers are softmaxes of the cosines with them.
    prompts = by_openais_templates(words_of, LABELS)
    assert np.allclose(model.embed_labels(), prompts, atol=1e-5)
    picture = unlabelled / "p0.png"
    logits = model.logit_scale * model.embed_images([picture])[0] @ prompts.T
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert dict(model.classify(picture)) == pytest.approx(
        dict(zip(LABELS, expected, strict=True)), abs=1e-4
    )


@pytest.mark.slow
def test_the_report_says_how_often_they_agree_and_shows_where_not(
    short_way: Path, unlabelled: Path, words_of: TeacherEncoder
) -> None:
    report = json.loads((short_way / "report.json").read_text())
    (entry,) = report["sets"]
    assert (entry["name"], entry["task"]) == ("held_out", "agreement")
    assert entry["borrowed"] == {"student": "texts"}
    teacher = entry["results"]["teacher"]
    assert (teacher["agreement@1"], teacher["agreement@5"]) == (1.0, 1.0)
    apart = entry["disagreements"]["student"]
    share = 1 - len(apart) / entry["samples"]
    assert entry["results"]["student"]["agreement@1"] == pytest.approx(share)
    # The bundle on its own gives the answers that the report lists.
    model = EdgeModel.load(short_way / "bundle")
    prompts = by_openais_templates(words_of, LABELS)
    for line in apart:
        image = Image.open(unlabelled / line["key"]).convert("RGB")
        seen = words_of.encode_images([image])
        assert seen is not None
        assert LABELS[int((seen @ prompts.T).argmax())] == line["reference"]
        assert model.classify(image)[0][0] == line["found"]
    page = (short_way / "report.html").read_text()
    assert page.count("data:image/jpeg") == len(apart)
    assert "held out of training" in page
    assert "The student has no text tower" in page


@pytest.mark.slow
def test_what_the_cache_holds_is_asked_of_the_teacher_no_more(
    short_way: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    encode = FrozenTeacher.encode_texts

    def watched(teacher: FrozenTeacher, texts: Sequence[str]) -> torch.Tensor:
        asked.extend(texts)
        return encode(teacher, texts)

    monkeypatch.setattr(FrozenTeacher, "encode_texts", watched)
    run = shutil.copytree(short_way, tmp_path / "run")
    before = json.loads((run / "report.json").read_text())
    assert evaluate(run)["sets"] == before["sets"]
    export(run, out=tmp_path / "bundle")
    assert not [text for text in asked if any(label in text for label in LABELS)]
    others = ["export.labels=[pink dog, grey sky]"]
    export(run, out=tmp_path / "others", overrides=others)
    assert len([text for text in asked if "pink dog" in text]) == len(OPENAI_IMAGENET_TEMPLATES)


@pytest.mark.slow
def test_training_taught_pictures_alone(short_way: Path) -> None:
    lines = lines_of(short_way)
    first = next(line for line in lines if "loss" in line)
    assert set(first["terms"]) == {"embedding_alignment", "corpus_relational", "prompt_kl"}
    assert set(first["teacher_student_cosine"]) == {"image"}
    caches = list((short_way / "cache").glob("*/*/manifest.json"))
    (manifest,) = [json.loads(path.read_text()) for path in caches]
    # The captions are the prompts of the bank.
    assert sum(shard["rows"] for shard in manifest["captions"]) == 80 * len(LABELS)


@pytest.mark.slow
def test_a_bundle_gets_other_labels(
    short_way: Path, tmp_path: Path, unlabelled: Path, words_of: TeacherEncoder
) -> None:
    other = tmp_path / "other.json"
    other.write_text('["a white cross", "ein Hund"]')
    out = tmp_path / "bundle"
    assert cli.main(["export", str(short_way), "--out", str(out), "--labels", str(other)]) == 0
    model = EdgeModel.load(out)
    assert model.labels == ("a white cross", "ein Hund")
    expected = by_openais_templates(words_of, model.labels)
    assert np.allclose(model.embed_labels(), expected, atol=1e-5)
    assert {label for label, _ in model.classify(unlabelled / "p0.png")} == set(model.labels)
    # The run keeps its own for the next time.
    assert EdgeModel.load(short_way / "bundle").labels == LABELS


def test_one_tower_starts_at_the_teachers_scale_and_two_at_clips(
    recipe: Recipe, teacher: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(teacher, tmp_path / "teacher")
    weights = load_file(other / "model.safetensors")
    weights["logit_scale"] = torch.tensor(30.0).log()
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    for student, expected in (
        ({"text": None}, 30.0),
        ({"text": None, "logit_scale": 5.0}, 5.0),
        ({}, 1 / 0.07),
    ):
        path = recipe(teacher={"model": str(other)}, student=student, losses={"kl_divergence": 0})
        model = Project(load_recipe(path)).student.model
        assert logit_scale(model).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("absent", "terms"), [("text", TERMS), ("image", TERMS[:-1])])
def test_all_terms_of_one_tower_train_and_are_validated(
    recipe: Recipe, absent: str, terms: tuple[str, ...]
) -> None:
    losses = {"kl_divergence": 0, **dict.fromkeys(terms, 1)}
    train = {"steps": 2, "warmup_steps": 1, "validate_every": 2}
    path = recipe(student={absent: None}, losses=losses, train=train)
    lines = lines_of(run(path, stages=("cache", "train")).path)
    (validated,) = [line["validation"]["terms"] for line in lines if "validation" in line]
    assert set(lines[0]["terms"]) == set(terms)
    # What is held out has no partners in the corpus of training.
    assert set(validated) == set(terms) - {"corpus_contrastive"}
    values = [*lines[0]["terms"].values(), *validated.values()]
    assert all(np.isfinite(value) and value > 0 for value in values)


@pytest.mark.slow
def test_a_text_tower_searches_an_index_that_the_teacher_made(
    recipe: Recipe, pictures: Path, words_of: TeacherEncoder, tmp_path: Path
) -> None:
    losses = {"kl_divergence": 0, "embedding_alignment": 5, "corpus_relational": 1}
    train = {"steps": 40, "warmup_steps": 4, "validate_every": 20, "learning_rate": 0.003}
    searcher = run(recipe(student={"image": None}, losses=losses, train=train)).path
    lines = lines_of(searcher)
    steps = [line for line in lines if "loss" in line]
    assert set(steps[0]["teacher_student_cosine"]) == {"text"}
    assert (
        steps[-1]["teacher_student_cosine"]["text"]
        > steps[0]["teacher_student_cosine"]["text"] + 0.2
    )
    report = json.loads((searcher / "report.json").read_text())
    tasks = {entry["task"]: entry for entry in report["sets"]}
    assert set(tasks) == {"zero_shot", "retrieval"}
    assert tasks["retrieval"]["borrowed"] == {"student": "images"}
    assert 0 < tasks["retrieval"]["results"]["student"]["mean_recall"] <= 1
    assert "The student has no image tower" in (searcher / "report.html").read_text()
    # Nothing of the pictures was cached, since nothing learned from them.
    manifest = json.loads(next((searcher / "cache").glob("*/*/manifest.json")).read_text())
    assert manifest["images"] == []

    bundle = searcher / "bundle"
    assert {path.name for path in bundle.iterdir()} == {
        "manifest.json",
        "text.onnx",
        "tokenizer.json",
    }
    source = open_table(pictures)
    index = words_of.encode_images(open_image(source[number]) for number in range(len(source)))
    assert index is not None
    captions = [source[number].captions[0] for number in range(len(source))]
    queries = tmp_path / "queries.txt"
    queries.write_text("\n".join(captions))
    out = tmp_path / "queries.npy"
    assert cli.main(["embed", str(bundle), "--texts", str(queries), "--out", str(out)]) == 0
    asked = np.load(out)
    assert (tmp_path / "queries.texts.txt").read_text().splitlines() == captions
    theirs = words_of.encode_texts(captions)
    assert theirs is not None
    assert asked.shape == index.shape
    # Its queries lie near the teacher's own, and far nearer than those of another caption.
    cosines = asked @ theirs.T
    others = cosines[~np.eye(len(cosines), dtype=bool)].mean()
    assert np.diag(cosines).mean() > max(0.7, others + 0.05)

    # Labels would meet no picture there.
    with pytest.raises(ExportError) as caught:
        export(searcher, out=tmp_path / "other", overrides=["export.labels=[cat, dog]"])
    assert str(caught.value) == (
        "export.labels: the student has no image tower, so its bundle classifies nothing; leave "
        "the labels out"
    )
    assert not (tmp_path / "other").exists()
