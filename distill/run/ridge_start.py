"""Before the first step: linear projections solved from a sample of the data."""

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor

from distill.basis.progress import make_console
from distill.recipe.student import StudentTowers
from distill.run.project import Project
from distill.train.batches import Batch, batches
from distill.train.loop import Work
from distill.train.projection import StartBatch, start_projections
from distill.train.step import TrainableStudent


def solve_projections(project: Project, work: Work, accelerator: Accelerator) -> None:
    """Solve linear projections from the first rows of training, if the recipe asks for it.

    Raises:
        RunError: They cannot be solved.
    """
    section = project.config.student
    if not isinstance(section, StudentTowers) or section.projection_start != "ridge":
        return
    count = -(-section.projection_samples // project.config.train.batch_size)
    steps = range(min(count, project.position.steps_per_epoch))
    student = work.trainable.to(accelerator.device)
    fetched = batches(work.dataset, steps, workers=project.config.data.workers, pin=False)
    sample = (part for batch in fetched for part in _parts(batch, student))
    solved = start_projections(work.student.model, sample, device=accelerator.device)
    for name, solution in solved.items():
        make_console().print(
            f"train: the {name} projection starts at a cosine of {solution.cosine:.3f} to the "
            "teacher, on rows held out from it and without dropout"
        )


@torch.no_grad()
def _parts(batch: Batch, student: TrainableStudent) -> Iterator[StartBatch]:
    """Yield the pieces of a batch, pictures normalised, with the teacher's rows."""
    first = 0
    for piece in batch.pieces:
        part = slice(first, first + len(piece))
        first = part.stop
        yield StartBatch(
            pixels=None if piece.pixels is None else student.normalised(piece.pixels),
            tokens=piece.tokens,
            teacher_image=_rows(batch.teacher_image, part),
            teacher_text=_rows(batch.teacher_text, part),
        )


def _rows(values: Tensor | None, part: slice) -> Tensor | None:
    return None if values is None else values[part]
