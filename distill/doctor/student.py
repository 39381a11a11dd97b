"""The doctor's visit to the student."""

from collections.abc import Generator, Iterator, Sequence
from functools import partial

from distill.doctor._models import (
    examine_cut,
    examine_embeddings,
    examine_padding,
    examine_statistics,
    slashed,
    statistics_are,
)
from distill.doctor._samples import Drawn, ReadOnlyProject
from distill.doctor.finding import Finding, attempt, wrong
from distill.evaluate.encoder import StudentEncoder
from distill.recipe.student import StudentHf
from distill.run.checks import check_student
from distill.run.student import student_preprocessing
from export.runtime.errors import StudentError
from export.runtime.preprocess import Preprocessing
from students.backbone import image_processor_for
from students.encoder import Student, encodable
from students.hub import find_model
from students.loading import load_image_processor
from students.towers import ImageTower

# A student that has learned nothing cannot tell pictures apart; a few show that it runs.
_A_FEW = 4


def examine_student(
    project: ReadOnlyProject, samples: Sequence[Drawn]
) -> Generator[Finding, None, Student | None]:
    """Yield the findings about the student; return it if it can be built."""
    refused: list[Finding] = []
    student = attempt("student", lambda: project.student, refused)
    if student is not None:
        attempt("student", partial(check_student, project), refused)
    yield from refused
    if student is None:
        return None
    yield from _examine_preprocessing(project, student)
    encoder = StudentEncoder(student, device=project.config.device)
    pictures = [picture for drawn in samples for picture in drawn.pictures][:_A_FEW]
    captions = [text for drawn in samples for text in drawn.every_caption]
    ways = "check that the weights that the student starts from are whole"
    image = encoder.encode_images(pictures) if pictures else None
    if image is not None:
        yield from examine_embeddings("student's pictures", image, ways=ways)
    text = encoder.encode_texts(captions[:_A_FEW]) if captions else None
    if text is not None:
        yield from examine_embeddings("student's captions", text, ways=ways)
    yield from examine_padding("student's padding", encoder, text="a photo of a dog")
    yield from _examine_context(student, captions)
    return student


def _examine_preprocessing(project: ReadOnlyProject, student: Student) -> Iterator[Finding]:
    preprocessing = student_preprocessing(student)
    if preprocessing is None:
        return
    about = "student's mean and std"
    yield from examine_statistics(about, preprocessing)
    refused: list[Finding] = []
    own = attempt(about, lambda: _own_preprocessing(project, student), refused)
    yield from refused
    if own is not None:
        yield from examine_difference(about, preprocessing, own)


def examine_difference(
    about: str, preprocessing: Preprocessing, own: Preprocessing
) -> list[Finding]:
    """Check that a model's mean and deviation are those that its weights were trained with."""
    if statistics_are(preprocessing, own.mean, own.std):
        return []
    return [
        wrong(
            about,
            f"they are {slashed(preprocessing.mean)} and {slashed(preprocessing.std)}, but its "
            f"weights were trained with {slashed(own.mean)} and {slashed(own.std)}",
            "use the image processor that belongs to the weights",
        )
    ]


def _own_preprocessing(project: ReadOnlyProject, student: Student) -> Preprocessing | None:
    """Return the preprocessing of the weights that a student starts from; None if not known.

    A timm backbone brings its own; a model of transformers has it in its folder.

    Raises:
        StudentError: The file in the folder cannot be read.
    """
    section = project.config.student
    tower = getattr(student.model, "image_tower", None)
    if isinstance(tower, ImageTower):
        return Preprocessing.from_processor(image_processor_for(tower.backbone, None).to_dict())
    if not isinstance(section, StudentHf) or section.model is None or not section.pretrained:
        return None
    try:
        folder = find_model(section.model, field="student.model")
        if not (folder / "preprocessor_config.json").is_file():
            return None
        processor = load_image_processor(folder, name=f"student.model: {section.model}")
        return Preprocessing.from_processor(processor.to_dict())
    except (ValueError, OSError) as error:
        raise StudentError(str(error)) from error


def _examine_context(student: Student, captions: Sequence[str]) -> Iterator[Finding]:
    tokenizer, length = student.tokenizer, student.context_length
    if tokenizer is None or not captions:
        return
    whole = tokenizer(encodable(captions), return_attention_mask=False, verbose=False)
    yield from examine_cut(
        "student's context",
        sum(len(ids) > length for ids in whole["input_ids"]),
        len(captions),
        length,
        ways="the student does not see the rest; raise student.text.context_length, or shorten "
        "them",
    )
