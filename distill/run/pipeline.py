"""The stages of a run: cache, train, evaluate, export; each alone or one after the other."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from distill.basis.progress import is_main_process, make_console
from distill.evaluate.compare import check_set, compare
from distill.evaluate.encoder import Encoder, StudentEncoder, Vectors, encode_many
from distill.evaluate.pictures import Options
from distill.evaluate.report.grids import disagreement_grids
from distill.evaluate.report.write import print_report, write_report
from distill.labels.label_set import DEFAULT_TEMPLATES, LabelSet, label_templates, name_labels
from distill.recipe.config import RunConfig
from distill.recipe.load import default_values, load_recipe, resolve
from distill.run.cache_stage import build_caches, check_caches, teacher_encoder
from distill.run.folder import RunFolder
from distill.run.project import Project
from distill.run.train_stage import train_stage
from distill.train.checkpoint import latest_checkpoint
from distill.train.processes import check_device, check_trackers, start_accelerator
from distill.train.towers import BOTH
from export.runtime.errors import ExportError, RecipeError, RunError
from students.model import load_student

Stage = Literal["cache", "train", "evaluate", "export"]
STAGES: tuple[Stage, ...] = ("cache", "train", "evaluate", "export")
Checkpoint = Literal["last", "best"]


def run(
    recipe: RunConfig | Path | str | None = None,
    *,
    teacher: str | Path | None = None,
    student: str | None = None,
    data: str | Path | None = None,
    labels: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    stages: Sequence[Stage] = STAGES,
) -> RunFolder:
    """Run the stages of a recipe, or of the default recipe for a teacher, a student and data.

    With ``labels`` the student is an image tower that classifies with them. A stage that is
    finished is skipped, an unfinished one goes on.

    Raises:
        ClipDistillError: something that the user named is wrong; nothing is created then.
    """
    teacher, data, labels = _text(teacher), _text(data), _text(labels)
    if recipe is not None and any(value is not None for value in (teacher, student, data, labels)):
        raise RecipeError("give either a recipe, or --teacher, --student, --data and --labels")
    if isinstance(recipe, RunConfig):
        config = recipe
    elif recipe is not None:
        more = [*overrides, *([] if out is None else [f"output={json.dumps(str(out))}"])]
        config = load_recipe(Path(recipe), overrides=more)
    else:
        values = default_values(
            teacher=teacher, student=student, data=data, labels=labels, output=out
        )
        config = resolve(values, overrides=overrides, where="command line")
    folder = RunFolder(config)
    folder.check()
    if folder.finished("train") and not all(folder.finished(stage) for stage in stages):
        # What is left to do reads its recipe from the folder.
        folder.open()
    for stage in stages:
        if stage in ("evaluate", "export") and not is_main_process():
            # One process measures and exports; the others are done.
            continue
        if folder.finished(stage):
            make_console().print(f"{stage}: finished before, skipped")
        elif stage == "cache" and config.train.teacher == "cached" and config.teachers:
            build_cache(config)
        elif stage == "train":
            train(config)
        elif stage == "evaluate":
            evaluate(folder.path)
        elif stage == "export":
            export(folder.path)
    return folder


def _text(name: str | Path | None) -> str | None:
    return None if name is None else str(name)


def open_run(project: Project) -> RunFolder:
    """Check everything that a recipe names, then create its run folder.

    The order of the checks is: the run folder, the data, the teacher, the student. Procedural
    scenes without a path of their own are rendered inside the run folder, so they come last.
    """
    config = project.config
    folder = RunFolder(config)
    folder.check()
    check_device(config.train.device, config.train.precision)
    check_trackers(config.train.trackers)
    if config.renders_inside:
        _ = project.teacher, project.student
        folder.open()
    _ = project.position
    for entry in project.evaluation_sets:
        check_set(entry)
    _ = project.teacher, project.student
    project.check_student()
    check_caches(project, folder.path)
    folder.open()
    folder.add_skips(project.skips)
    return folder


def build_cache(config: RunConfig) -> None:
    """Embed the training pictures and captions by the teacher, unless that is done.

    Under a launcher each process embeds its share.

    Raises:
        RecipeError: the recipe has no teacher.
        RunError: processes or device do not fit.
        CacheError: the cache folder holds something else.
    """
    if not config.teachers:
        raise RecipeError("teacher: the recipe names none, so there is nothing to cache")
    settings = config.train
    accelerator = start_accelerator(device=settings.device, precision=settings.precision)
    project = Project(config)
    folder = RunFolder(config)
    if accelerator.is_main_process:
        folder = open_run(project)
    accelerator.wait_for_everyone()
    build_caches(project, folder, accelerator)
    accelerator.end_training()


def train(config: RunConfig) -> None:
    """Train the student, from the newest checkpoint where there is one.

    Raises:
        RunError: processes, device or precision do not fit.
        KeyboardInterrupt: Ctrl-C came; the text says what was saved.
    """
    settings = config.train
    accelerator = start_accelerator(
        device=settings.device,
        precision=settings.precision,
        trackers=settings.trackers,
        folder=config.folder,
        towers_rest=bool(settings.freeze_image_steps or settings.freeze_text_steps),
    )
    if settings.batch_size % accelerator.num_processes:
        raise RunError(
            f"train.batch_size: {settings.batch_size} does not divide by the "
            f"{accelerator.num_processes} processes"
        )
    project = Project(config)
    folder = RunFolder(config)
    if accelerator.is_main_process:
        folder = open_run(project)
    accelerator.wait_for_everyone()
    if folder.finished("train"):
        make_console().print("train: finished before, skipped")
    else:
        train_stage(project, folder, accelerator)
    accelerator.end_training()


def evaluate(
    run_folder: Path | str, *, checkpoint: Checkpoint = "last", overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure teacher and student of a run on the recipe's evaluation sets, and write the report.

    Returns:
        The content of ``report.json``.

    Raises:
        RunError: the folder is no run, or holds no student yet.
    """
    folder, project = _finished_run(Path(run_folder), overrides)
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
    notes = _notes(project, folder.path, checkpoint)
    write_report(
        report,
        _place(folder, checkpoint),
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


def _place(folder: RunFolder, checkpoint: Checkpoint) -> Path:
    """Return where results go: the run folder, or ``best`` in it for the best student's."""
    place = folder.path if checkpoint == "last" else folder.path / "best"
    place.mkdir(exist_ok=True)
    return place


def export(
    run_folder: Path | str,
    *,
    out: Path | str | None = None,
    checkpoint: Checkpoint = "last",
    overrides: Sequence[str] = (),
) -> Path:
    """Write a run's student as a bundle of ONNX graphs, verified against torch.

    Returns:
        The bundle's folder: ``out``, or ``bundle`` in the run folder; ``best/bundle`` for the best.

    Raises:
        RunError: the folder is no run, or holds no student yet.
        ExportError: the student cannot be exported, or the graphs differ from it.
    """
    from export.bundle import export_student
    from export.labels import Labels

    folder, project = _finished_run(Path(run_folder), overrides)
    config = project.config
    student = student_folder(folder.path, checkpoint)
    templates = _export_templates(project)
    named = None
    if config.export.labels is not None:
        names = name_labels(config.export.labels, field="export.labels")
        named = LabelSet(names, templates)
    elif project.labels is not None:
        named = replace(project.labels, templates=templates)
    vectors = None if named is None else _embedded(named, project, folder.path, student)
    result = export_student(
        student,
        _place(folder, checkpoint) / "bundle" if out is None else Path(out),
        templates=templates,
        labels=None if named is None or vectors is None else Labels(named.names, vectors),
        opset=config.export.opset,
        tolerance=config.export.tolerance,
    )
    for name, size in result.sizes.items():
        make_console().print(f"export: {result.folder / name} {size / 1e6:.2f} MB")
    if out is None and checkpoint == "last":
        folder.finish("export")
    return result.folder


def _export_templates(project: Project) -> tuple[str, ...]:
    """Return the templates of the bundle: its own, those of the labels, or of the first set."""
    config = project.config
    given = config.export.templates or label_templates(config.data)
    sets = config.evaluation_entries
    return given or (sets[0].template_list if sets else None) or DEFAULT_TEMPLATES


def _embedded(
    labels: LabelSet, project: Project, run_folder: Path, student_path: Path
) -> Vectors | None:
    """Embed labels by the student's own text tower, or by the teacher where it has none.

    A student without an image tower has no use for those of the data: None.

    Raises:
        ExportError: neither of them reads texts, or the export itself asks for labels that no
            picture will meet.
    """
    student = load_student(student_path)
    if student.image_processor is None:
        if project.config.export.labels is None:
            return None
        raise ExportError(
            "export.labels: the student has no image tower, so its bundle classifies nothing; "
            "leave the labels out"
        )
    encoder = StudentEncoder(student)
    vectors = labels.embed(partial(encode_many, encoder, progress=True))
    if vectors is None and (teacher := teacher_encoder(project, run_folder)) is not None:
        vectors = labels.embed(partial(encode_many, teacher, progress=True))
    if vectors is None:
        raise ExportError(
            "export.labels: the student has no text tower and the recipe no teacher to embed them; "
            "leave the labels out, or give the teacher"
        )
    return vectors


def student_folder(run_folder: Path, checkpoint: Checkpoint) -> Path:
    """Return where a run's student stands: the last one or the best one.

    Raises:
        RunError: there is none yet.
    """
    if checkpoint == "best":
        if (run_folder / "student_best").exists():
            return run_folder / "student_best"
        raise RunError(f"{run_folder}: no best student was kept; use --checkpoint last")
    if (run_folder / "student").exists():
        return run_folder / "student"
    newest = latest_checkpoint(run_folder / "checkpoints")
    if newest is None:
        raise RunError(
            f"{run_folder}: no student yet; run `clip-distill train {run_folder}/recipe.yaml`"
        )
    return newest / "student"


def _finished_run(path: Path, overrides: Sequence[str]) -> tuple[RunFolder, Project]:
    """Open a run by its folder, wherever that was moved; overrides become part of its recipe."""
    recipe = path / "recipe.yaml"
    if not recipe.exists():
        raise RunError(f"{path}: no run folder, since there is no recipe.yaml in it")
    config = load_recipe(recipe, overrides=[*overrides, f"output={json.dumps(str(path))}"])
    folder = RunFolder(config)
    folder.check()
    if overrides:
        folder.open()
    return folder, Project(config)


def _notes(project: Project, run_folder: Path, checkpoint: Checkpoint) -> list[str]:
    """Return what a reader of the report has to know beside the numbers."""
    notes = []
    if not project.evaluation_sets:
        notes.append(
            "Nothing could be measured: the data has neither labels nor captions, and the recipe "
            "no data.labels; name a list of words there."
        )
    elif project.config.holds_out:
        held_out = max(len(entry.source) for entry in project.evaluation_sets)
        notes.append(
            f"The recipe names no evaluation data: {held_out:,} pictures were held out of training."
        )
    notes += [*_ensemble(project), *_one_tower(project)]
    if not (run_folder / "student").exists():
        notes.append("Training is not finished: this is the student of the newest checkpoint.")
    if checkpoint == "best":
        best = json.loads(_best_state(run_folder))["best"]
        notes.append(
            f"The student is that of step {best['step']}, chosen by {best['metric']} on "
            f"{best['set']}: its score there flatters it."
        )
    return notes


def _ensemble(project: Project) -> list[str]:
    """Say who the teacher is where it is several."""
    if project.teacher is None or len(project.teacher.members) == 1:
        return []
    whole = zip(project.teacher.members, project.teacher.shares, strict=True)
    parts = [
        f"teacher.{number} is {member.name} with {share.weight:.1%}"
        for number, (member, share) in enumerate(whole)
    ]
    return [f"The teacher is an ensemble: {', '.join(parts)}."]


def _one_tower(project: Project) -> list[str]:
    """Say whose the other side is where the student has one tower."""
    towers = project.towers
    if towers == BOTH or not project.evaluation_sets:
        return []
    missing, has, theirs = (
        ("image", "texts", "images") if towers.text else ("text", "pictures", "texts")
    )
    return [
        f"The student has no {missing} tower: its {has} are compared with the teacher's {theirs}."
    ]


def _best_state(run_folder: Path) -> str:
    newest = latest_checkpoint(run_folder / "checkpoints")
    if newest is None:
        raise RunError(f"{run_folder}: no checkpoint says which student was the best")
    return (newest / "state.json").read_text()
