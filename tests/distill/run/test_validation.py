"""Validation during training: the terms on held-out rows, and the headline."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.data.sample import Sample, Skip
from distill.recipe.config import RunConfig
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.evaluate.encoder import StudentEncoder
    from distill.losses.contrastive import contrastive
    from distill.losses.distributions import kl_divergence
    from distill.losses.embeddings import Embeddings
    from distill.losses.weighted import Term, WeightedLoss
    from distill.run.cache_stage import teacher_encoder
    from distill.run.project import Project
    from distill.run.validation import StudentValidator, ValidationSettings
    from students.encoder import logit_scale

Configure = Callable[..., RunConfig]


def make(
    project: Project, *, batch_size: int = 100, taught: bool = True, **changes: Any
) -> StudentValidator:
    values: dict[str, Any] = {
        "source": project.validation_source,
        "captions": project.captions,
        "headline_set": None,
        "student": project.student,
        "teacher": teacher_encoder(project, project.config.folder) if taught else None,
        "loss": project.loss,
        "banks": None,
        "settings": ValidationSettings(
            samples=100, batch_size=batch_size, max_skipped=0.5, device=torch.device("cpu")
        ),
        **changes,
    }
    return StudentValidator(**values)


@pytest.fixture
def project(configure: Configure, pictures: Path) -> Project:
    """Return a project that validates on all 24 pictures, with live teachers."""
    return Project(
        configure(
            data={"validation": {"kind": "table", "path": str(pictures)}},
            losses={"kl_divergence": 1, "contrastive": 2},
            train={"teacher": "live"},
        )
    )


def embedded(project: Project) -> tuple[Embeddings, Embeddings]:
    """Return what student and teacher say of the validation rows, with each row's first caption."""
    source, teacher = project.validation_source, teacher_encoder(project, project.config.folder)
    assert source is not None
    assert teacher is not None
    samples = [source[number] for number in range(len(source))]
    chosen = [project.captions.choose(sample, times_shown=0) for sample in samples]
    texts = [caption.text for caption in chosen if caption is not None]
    from distill.data.sample import open_image

    found = []
    for encoder in (StudentEncoder(project.student), teacher):
        images = encoder.encode_images([open_image(sample) for sample in samples])
        words = encoder.encode_texts(texts)
        assert images is not None
        assert words is not None
        scale = (
            logit_scale(project.student.model).detach()
            if isinstance(encoder, StudentEncoder)
            else torch.tensor(teacher.logit_scale)
        )
        found.append(Embeddings(torch.from_numpy(images), torch.from_numpy(words), scale))
    return found[0], found[1]


def test_terms_are_those_of_the_loss_on_the_validation_rows(project: Project) -> None:
    line = make(project)(project.student)
    student, teacher = embedded(project)
    # Every picture and caption of the world is its own, but captions may repeat.
    source = project.validation_source
    assert source is not None
    texts = [source[number].captions[0] for number in range(len(source))]
    groups = torch.tensor([texts.index(text) for text in texts])
    expected = {
        "kl_divergence": float(kl_divergence(student, teacher)),
        "contrastive": float(contrastive(student, groups)),
    }
    assert line["terms"] == pytest.approx(expected, rel=1e-4)
    total = expected["kl_divergence"] + 2 * expected["contrastive"]
    assert line["loss"] == pytest.approx(total, rel=1e-4)


def test_batches_count_by_their_rows(project: Project) -> None:
    parts = make(project, batch_size=10)(project.student)
    student, teacher = embedded(project)

    def part(rows: Embeddings, first: int) -> Embeddings:
        assert rows.image is not None
        assert rows.text is not None
        some = slice(first, first + 10)
        return Embeddings(rows.image[some], rows.text[some], rows.scale)

    values = [
        float(kl_divergence(part(student, first), part(teacher, first))) for first in (0, 10, 20)
    ]
    expected = np.average(values, weights=[10, 10, 4])
    assert parts["terms"]["kl_divergence"] == pytest.approx(expected, rel=1e-4)


def test_a_term_that_needs_partners_of_the_corpus_is_left_out(project: Project) -> None:
    both = WeightedLoss({"contrastive": Term(1.0), "corpus_contrastive": Term(1.0)})
    line = make(project, loss=both)(project.student)
    assert list(line["terms"]) == ["contrastive"]
    alone = WeightedLoss({"corpus_contrastive": Term(1.0)})
    assert make(project, loss=alone)(project.student) == {}


def test_the_headline_is_that_of_its_set(project: Project) -> None:
    (headline_set, *_) = project.evaluation_sets
    line = make(project, headline_set=headline_set)(project.student)
    assert line["headline"]["set"] == headline_set.name
    assert 0 <= line["headline"]["value"] <= 1


class Damaged:
    """A source whose second picture cannot be read."""

    name = "damaged"
    skipped: tuple[Skip, ...] = ()

    def __init__(self, source: Any) -> None:
        self._source = source
        self.rows = len(source)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = self._source[index]
        return Sample("broken", b"no picture", sample.captions, None) if index == 1 else sample


def test_a_picture_that_cannot_be_read_is_skipped_and_listed(project: Project) -> None:
    validator = make(project, source=Damaged(project.validation_source))
    assert [skip.where for skip in validator.skipped] == ["damaged: broken"]
    assert validator(project.student)["loss"] > 0


def test_nothing_is_measured_without_rows_and_sets(project: Project) -> None:
    assert make(project, source=None)(project.student) == {}


def test_a_student_of_pictures_alone_reads_no_captions(
    configure: Configure, pictures: Path
) -> None:
    one = Project(
        configure(
            student={"text": None},
            data={"validation": {"kind": "table", "path": str(pictures)}},
            losses={"embedding_alignment": 1},
            train={"teacher": "live"},
        )
    )
    (headline_set, *_) = one.evaluation_sets
    validator = make(one, headline_set=headline_set)
    line = validator(one.student)
    assert list(line["terms"]) == ["embedding_alignment"]
    # The teacher is needed only at the beginning, and may be removed after that.
    one.release_teacher()
    assert validator(one.student) == line
