"""The evaluate stage: student and teacher on the same samples, and the report."""

import json
from pathlib import Path
from typing import Any

from distill.basis.progress import make_console
from distill.evaluate.compare import compare
from distill.evaluate.encoder import Encoder, StudentEncoder
from distill.evaluate.pictures import Options
from distill.evaluate.report.grids import disagreement_grids
from distill.evaluate.report.write import print_report, write_report
from distill.run.cache_stage import teacher_encoder
from distill.run.folder import RunFolder
from distill.run.names import Checkpoint
from distill.run.opening import results_folder, student_folder
from distill.run.project import Project
from distill.train.checkpoint import latest_checkpoint
from distill.train.towers import BOTH
from export.runtime.errors import RunError
from students.model import load_student


def evaluate_stage(
    project: Project, folder: RunFolder, *, checkpoint: Checkpoint
) -> dict[str, Any]:
    """Measure teacher and student on the project's evaluation sets, and write the report.

    Returns:
        The content of ``report.json``.

    Raises:
        RunError: The run has no student yet.
        DataError: An evaluation set cannot be used.
    """
    path = student_folder(folder.path, checkpoint)
    encoders: list[Encoder] = []
    if (whole := teacher_encoder(project, folder.path)) is not None:
        encoders += [whole, *whole.members]
    encoders.append(StudentEncoder(load_student(path, device=project.config.device)))
    sets = project.evaluation_sets
    options = Options(max_skipped=project.config.data.max_skipped, progress=True)
    report, skips = compare(encoders, sets, options=options)
    folder.add_skips(skips)
    history = folder.path / "metrics.jsonl"
    notes = _report_notes(project, folder.path, checkpoint)
    write_report(
        report,
        results_folder(folder, checkpoint),
        history=history if history.exists() else None,
        grids=disagreement_grids(report, sets),
        notes=notes,
        title=folder.path.name,
    )
    console = make_console()
    print_report(report, console)
    for line in notes:
        console.print(line)
    if checkpoint == "last":
        folder.finish("evaluate")
    return report


def _report_notes(project: Project, run_folder: Path, checkpoint: Checkpoint) -> list[str]:
    """Return what a reader of the report has to know besides the numbers."""
    notes = []
    if not project.evaluation_sets:
        notes.append(
            "Nothing could be measured: the data has neither labels nor captions, and the recipe "
            "has no data.labels; list the labels to tell apart there."
        )
    elif project.config.holds_out:
        held_out = max(len(entry.source) for entry in project.evaluation_sets)
        notes.append(
            f"The recipe names no evaluation data: {held_out:,} pictures were held out of training."
        )
    notes += [*_several_teachers(project), *_one_tower(project)]
    if not (run_folder / "student").exists():
        notes.append("Training is not finished: this is the student of the newest checkpoint.")
    if checkpoint == "best":
        best = _best_state(run_folder)
        notes.append(
            f"The student is that of step {best['step']}, chosen by {best['metric']} on "
            f"{best['set']}; its score on that set is therefore too good."
        )
    return notes


def _several_teachers(project: Project) -> list[str]:
    """Say who teaches if several teachers do."""
    if project.teacher is None or len(project.teacher.members) == 1:
        return []
    whole = zip(project.teacher.members, project.teacher.shares, strict=True)
    parts = [
        f"teacher.{number} is {member.name} with {share.weight:.1%}"
        for number, (member, share) in enumerate(whole)
    ]
    return [f"The teacher is an ensemble: {', '.join(parts)}."]


def _one_tower(project: Project) -> list[str]:
    """Say whose embeddings fill the missing side if the student has one tower."""
    towers = project.towers
    if towers == BOTH or not project.evaluation_sets:
        return []
    missing, has, theirs = (
        ("image", "texts", "images") if towers.text else ("text", "pictures", "texts")
    )
    return [
        f"The student has no {missing} tower: its {has} are compared with the teacher's {theirs}."
    ]


def _best_state(run_folder: Path) -> dict[str, Any]:
    newest = latest_checkpoint(run_folder / "checkpoints")
    if newest is None:
        raise RunError(f"{run_folder}: no checkpoint says which student was the best")
    best: dict[str, Any] = json.loads((newest / "state.json").read_text())["best"]
    return best
