"""The export stage: a run's student as a bundle, with the labels that it classifies with."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from distill.basis.progress import make_console
from distill.evaluate.encoder import StudentEncoder, Vectors, encode_many
from distill.labels.label_set import LabelSet
from distill.labels.names import name_labels
from distill.run.cache_stage import teacher_encoder
from distill.run.digests import bundle_templates
from distill.run.folder import RunFolder
from distill.run.names import Checkpoint
from distill.run.opening import results_folder, student_folder
from distill.run.project import Project
from export.runtime.errors import ExportError
from students.model import load_student


def export_stage(
    project: Project, folder: RunFolder, *, out: Path | None, checkpoint: Checkpoint
) -> Path:
    """Write a run's student as a bundle of ONNX graphs, verified against torch.

    Returns:
        The folder of the bundle.

    Raises:
        RunError: The run has no student yet.
        ExportError: The student cannot be exported, or the graphs differ from it.
    """
    # A machine that only trains may lack onnx.
    from export.bundle import export_student
    from export.labels import Labels

    config = project.config
    student = student_folder(folder.path, checkpoint)
    templates = bundle_templates(config)
    labels = _bundle_labels(project, templates)
    vectors = None if labels is None else _embedded(labels, project, folder.path, student)
    result = export_student(
        student,
        results_folder(folder, checkpoint) / "bundle" if out is None else out,
        templates=templates,
        labels=None if labels is None or vectors is None else Labels(labels.names, vectors),
        opset=config.export.opset,
        tolerance=config.export.tolerance,
    )
    for name, size in result.sizes.items():
        make_console().print(f"export: {result.folder / name} {size / 1e6:.2f} MB")
    if out is None and checkpoint == "last":
        folder.finish("export")
    return result.folder


def _bundle_labels(project: Project, templates: tuple[str, ...]) -> LabelSet | None:
    """Return the labels that the bundle classifies with, None for a bundle without any."""
    given = project.config.export.labels
    if given is not None:
        return LabelSet(name_labels(given, field="export.labels"), templates)
    return None if project.labels is None else replace(project.labels, templates=templates)


def _embedded(
    labels: LabelSet, project: Project, run_folder: Path, student_path: Path
) -> Vectors | None:
    """Embed labels with the student's own text tower, or with the teacher if it has none.

    None for a student without an image tower, which has no use for the labels of the data.

    Raises:
        ExportError: Neither of them reads texts, or ``export.labels`` is given for a student
            without an image tower.
    """
    student = load_student(student_path)
    if student.image_processor is None:
        if project.config.export.labels is None:
            return None
        raise ExportError(
            "export.labels: the student has no image tower, so its bundle classifies nothing; "
            "leave the labels out"
        )
    vectors = labels.embed(partial(encode_many, StudentEncoder(student), progress=True))
    if vectors is None and (teacher := teacher_encoder(project, run_folder)) is not None:
        vectors = labels.embed(partial(encode_many, teacher, progress=True))
    if vectors is None:
        raise ExportError(
            "export.labels: the student has no text tower and the recipe has no teacher to embed "
            "the labels; leave the labels out, or add the teacher"
        )
    return vectors
