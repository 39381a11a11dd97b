"""A finished student can teach, loaded from its own folder or from its run."""

import shutil
from pathlib import Path

import pytest

from distill.recipe.teachers import HfTeacherSection, StudentTeacherSection
from export.runtime.errors import TeacherError
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.teacher.hf import load_student_teacher
    from distill.teacher.load import load_teacher
    from students.build import build_towers
    from students.encoder import embed_texts, tokenize

TEXTS = ["a cat", "the dog sat on a mat", "x"]


@pytest.fixture
def run(tmp_path: Path, pair_folder: Path) -> Path:
    """Return a run folder with the files that a teacher reads."""
    fields = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    student = build_towers(
        image={"backbone": "test_efficientnet", "pretrained": False, "image_size": 32},
        text={"config": fields, "tokenizer": str(pair_folder), "pretrained": False},
        width=24,
        logit_scale=20.0,
    )
    student.save(tmp_path / "runs" / "large" / "student")
    return tmp_path / "runs" / "large"


def test_a_run_and_its_student_are_one_teacher(run: Path, tmp_path: Path) -> None:
    by_run, by_folder = load_student_teacher(str(run)), load_student_teacher(str(run / "student"))
    assert by_run.name == by_folder.name == "large-student"
    moved = Path(shutil.copytree(run / "student", tmp_path / "small"))
    elsewhere = load_student_teacher(str(moved))
    assert elsewhere.name == "small"
    assert by_run.fingerprint == by_folder.fingerprint == elsewhere.fingerprint
    assert (by_run.width, by_run.logit_bias) == (24, 0)
    assert by_run.logit_scale == pytest.approx(20.0)


def test_it_embeds_as_the_student_does(run: Path) -> None:
    teacher = load_teacher(StudentTeacherSection(model=str(run)))
    same = load_teacher(HfTeacherSection(model=str(run / "student")))
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    assert torch.equal(teacher.encode_texts(TEXTS), same.encode_texts(TEXTS))
    assert torch.equal(teacher.encode_images(pixels), same.encode_images(pixels))
    tokens = tokenize(teacher._tokenizer, TEXTS, context_length=64, padding="longest")
    with torch.no_grad():
        expected = embed_texts(teacher._model, tokens)
    torch.testing.assert_close(teacher.encode_texts(TEXTS), expected, rtol=0, atol=1e-6)


def fail(model: object) -> str:
    with pytest.raises(TeacherError) as caught:
        load_student_teacher(str(model))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folders_without_a_finished_student_are_refused(run: Path, tmp_path: Path) -> None:
    assert "is not a folder; kind: student takes" in fail("openai/clip")
    assert "holds no finished student" in fail(tmp_path)
    (run / "student" / "model.safetensors").unlink()
    assert "model.safetensors is missing" in fail(run)
