"""Open runs: an existing one, or a new one after everything that its recipe names is checked."""

import json
from collections.abc import Sequence
from pathlib import Path

from distill.evaluate.compare import check_set
from distill.recipe.load import load_recipe
from distill.run.cache_stage import check_caches
from distill.run.checks import check_student
from distill.run.folder import RunFolder
from distill.run.names import Checkpoint
from distill.run.project import Project
from distill.train.checkpoint import latest_checkpoint
from distill.train.processes import check_device, check_trackers
from export.runtime.errors import RunError


def open_run(project: Project) -> RunFolder:
    """Check everything that a recipe names, then create its run folder.

    The checks come in this order: the run folder, the data, the teacher, the student. Scenes
    without a path of their own are rendered inside the run folder, so their checks come last.

    Raises:
        ClipDistillError: Something that the recipe names cannot be used; nothing is created.
    """
    config = project.config
    folder = RunFolder(config)
    folder.check()
    check_device(config.train.device, config.train.precision)
    check_trackers(config.train.trackers)
    if config.renders_inside:
        project.open_models()
        folder.open()
    project.open_data()
    for entry in project.evaluation_sets:
        check_set(entry)
    project.open_models()
    check_student(project)
    check_caches(project, folder.path)
    folder.open()
    folder.add_skips(project.skips)
    return folder


def open_existing(path: Path, *, overrides: Sequence[str] = ()) -> tuple[RunFolder, Project]:
    """Open the run in a folder, even if the folder was moved; overrides become part of its recipe.

    Raises:
        RunError: The folder is not a run folder.
        RecipeError: An override is wrong.
    """
    recipe = path / "recipe.yaml"
    if not recipe.exists():
        raise RunError(f"{path}: not a run folder; it has no recipe.yaml")
    config = load_recipe(recipe, overrides=[*overrides, f"output={json.dumps(str(path))}"])
    folder = RunFolder(config)
    folder.check()
    if overrides:
        folder.open()
    return folder, Project(config)


def student_folder(run_folder: Path, checkpoint: Checkpoint) -> Path:
    """Return the folder of a run's student: the last one or the best one.

    Before training ends, the last student is that of the newest checkpoint.

    Raises:
        RunError: The run has no such student yet.
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


def results_folder(folder: RunFolder, checkpoint: Checkpoint) -> Path:
    """Return where results go: the run folder, or ``best`` in it for the best student."""
    place = folder.path if checkpoint == "last" else folder.path / "best"
    place.mkdir(exist_ok=True)
    return place
