"""The stages of a run – cache, train, evaluate, export – one by one or all in turn.

Example::

    from distill.run.pipeline import run

    folder = run(
        teacher="openai/clip-vit-large-patch14",
        student="mobilenetv4_conv_small",
        data="photos/",
        out="runs/mine",
    )
    print(folder.path / "report.html")
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.basis.progress import is_main_process, make_console
from distill.recipe.config import RunConfig
from distill.recipe.defaults import default_values
from distill.recipe.load import load_recipe, resolve
from distill.recipe.stages import STAGES, Stage
from distill.run.cache_stage import build_caches
from distill.run.evaluate_stage import evaluate_stage
from distill.run.export_stage import export_stage
from distill.run.folder import RunFolder
from distill.run.names import Checkpoint
from distill.run.opening import open_existing, open_run
from distill.run.project import Project
from distill.run.train_stage import train_stage
from distill.train.processes import start_accelerator
from export.runtime.errors import RecipeError, RunError


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

    A finished stage is skipped, and an unfinished one continues from where it stopped.

    Args:
        recipe: A recipe file or a checked configuration. Give this or the next four.
        teacher: A name with its kind, such as ``hf:openai/clip-vit-base-patch32``; a bare name
            is a model of transformers, one of OpenAI's names, or a folder.
        student: A timm backbone, or the folder of a dual encoder of transformers.
        data: A table, a folder of pictures or of classes, or tars.
        labels: A file with one label per line. The student is then an image tower that classifies
            pictures with these labels.
        out: The run folder; by default the recipe's ``output``.
        overrides: Values that replace the recipe's, each as ``a.b=value``.
        stages: The stages to run, in this order.

    Returns:
        The run folder.

    Raises:
        ClipDistillError: Something that you named is wrong; nothing is created then.
    """
    config = _resolve(
        recipe,
        {"teacher": teacher, "student": student, "data": data, "labels": labels},
        out=out,
        overrides=overrides,
    )
    folder = RunFolder(config)
    folder.check()
    if folder.finished("train") and not all(folder.finished(stage) for stage in stages):
        # The folder's recipe is what `eval` and `export` read later.
        folder.open()
    _run_stages(Project(config), folder, stages)
    return folder


def build_cache(config: RunConfig) -> None:
    """Embed the training pictures and captions with the teacher, unless that is done.

    Under a launcher, each process embeds its share.

    Raises:
        RecipeError: The recipe has no teacher.
        RunError: The number of processes or the device does not fit.
        CacheError: The cache folder holds something else.
    """
    _cache(Project(config))


def train(config: RunConfig) -> None:
    """Train the student, from the newest checkpoint if there is one.

    Raises:
        RunError: The number of processes, the device or the precision does not fit.
        KeyboardInterrupt: Ctrl-C was pressed; the text says what was saved.
    """
    _train(Project(config), keep_teacher=False)


def evaluate(
    run_folder: Path | str, *, checkpoint: Checkpoint = "last", overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure teacher and student of a run on its evaluation sets, and write the report.

    Args:
        run_folder: The folder of the run.
        checkpoint: The ``last`` student or the ``best`` one.
        overrides: Values that replace the recipe's, each as ``a.b=value``.

    Returns:
        The content of ``report.json``.

    Raises:
        RunError: The folder is not a run folder, or holds no student yet.
    """
    folder, project = open_existing(Path(run_folder), overrides=overrides)
    return evaluate_stage(project, folder, checkpoint=checkpoint)


def export(
    run_folder: Path | str,
    *,
    out: Path | str | None = None,
    checkpoint: Checkpoint = "last",
    overrides: Sequence[str] = (),
) -> Path:
    """Write a run's student as a bundle of ONNX graphs, verified against torch.

    Args:
        run_folder: The folder of the run.
        out: Where the bundle goes; by default ``bundle`` in the run folder, or ``best/bundle`` for
            the best student.
        checkpoint: The ``last`` student or the ``best`` one.
        overrides: Values that replace the recipe's, each as ``a.b=value``.

    Returns:
        The folder of the bundle.

    Raises:
        RunError: The folder is not a run folder, or holds no student yet.
        ExportError: The student cannot be exported, or the graphs differ from it.
    """
    folder, project = open_existing(Path(run_folder), overrides=overrides)
    place = None if out is None else Path(out)
    return export_stage(project, folder, out=place, checkpoint=checkpoint)


def _run_stages(project: Project, folder: RunFolder, stages: Sequence[Stage]) -> None:
    """Run the stages that are not finished yet, all of them on one project."""
    config = project.config
    for number, stage in enumerate(stages):
        if stage in ("evaluate", "export") and not is_main_process():
            # One process measures and exports; the others are done.
            continue
        if folder.finished(stage):
            make_console().print(f"{stage}: finished before, skipped")
            continue
        match stage:
            case "cache":
                if config.train.teacher == "cached" and config.teachers:
                    _cache(project)
            case "train":
                later = {"evaluate", "export"}.intersection(stages[number + 1 :])
                _train(project, keep_teacher=bool(later) and is_main_process())
            case "evaluate":
                evaluate_stage(project, folder, checkpoint="last")
            case "export":
                export_stage(project, folder, out=None, checkpoint="last")


def _resolve(
    recipe: RunConfig | Path | str | None,
    named: dict[str, str | Path | None],
    *,
    out: str | Path | None,
    overrides: Sequence[str],
) -> RunConfig:
    """Return the configuration of a recipe, or of the default recipe for what is named."""
    if recipe is not None and any(value is not None for value in named.values()):
        raise RecipeError("give either a recipe, or --teacher, --student, --data and --labels")
    if isinstance(recipe, RunConfig):
        return recipe
    if recipe is not None:
        more = [*overrides, *([] if out is None else [f"output={json.dumps(str(out))}"])]
        return load_recipe(Path(recipe), overrides=more)
    texts = {name: None if value is None else str(value) for name, value in named.items()}
    values = default_values(**texts, output=out)
    return resolve(values, overrides=overrides, where="command line")


def _cache(project: Project) -> None:
    config = project.config
    if not config.teachers:
        raise RecipeError("teacher: the recipe has no teacher, so there is nothing to cache")
    settings = config.train
    accelerator = start_accelerator(device=settings.device, precision=settings.precision)
    folder = RunFolder(config)
    if accelerator.is_main_process:
        folder = open_run(project)
    accelerator.wait_for_everyone()
    build_caches(project, folder, accelerator)
    accelerator.end_training()


def _train(project: Project, *, keep_teacher: bool) -> None:
    config = project.config
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
            f"{accelerator.num_processes} processes; choose a multiple of that number"
        )
    folder = RunFolder(config)
    if accelerator.is_main_process:
        folder = open_run(project)
    accelerator.wait_for_everyone()
    if folder.finished("train"):
        make_console().print("train: finished before, skipped")
    else:
        train_stage(project, folder, accelerator, keep_teacher=keep_teacher)
    accelerator.end_training()
