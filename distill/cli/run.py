"""The commands that make a student from a recipe: all stages at once, or one by one."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from distill.cli._errors import PROBLEMS_FOUND, needs_train_extra
from distill.cli._options import (
    DataPath,
    LabelFile,
    Overrides,
    RecipePath,
    RunFolderToWrite,
    RunPath,
    StudentName,
    TeacherName,
    WhichCheckpoint,
)
from export.runtime.errors import RecipeError


def run(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="YAML file with the recipe.")
    ] = None,
    teacher: TeacherName = None,
    student: StudentName = None,
    data: DataPath = None,
    labels: LabelFile = None,
    out: RunFolderToWrite = None,
    overrides: Overrides = None,
) -> None:
    """Cache, train, evaluate and export, from a recipe or from the default one."""
    named = (teacher, student, data, labels)
    if recipe is not None and any(value is not None for value in named):
        raise RecipeError(
            f"{recipe}: given together with --teacher, --student, --data or --labels; give either "
            "a recipe or these options"
        )
    if recipe is None and data is None:
        raise RecipeError("run: give a RECIPE, or --data with the pictures to learn from")
    with needs_train_extra("run"):
        from distill.recipe.defaults import default_values
        from distill.recipe.load import resolve
        from distill.run.pipeline import run as run_stages
    config = (
        resolve(
            default_values(teacher=teacher, student=student, data=data, labels=labels, output=out),
            overrides=overrides or (),
            where="command line",
        )
        if recipe is None
        else _load(recipe, overrides, out=out)
    )
    run_stages(config)


def recipe(
    teacher: TeacherName = None,
    student: StudentName = None,
    data: DataPath = None,
    labels: LabelFile = None,
    out: RunFolderToWrite = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
) -> None:
    """Print the default recipe with a sentence on each field."""
    with needs_train_extra("recipe"):
        from distill.recipe.defaults import default_values
        from distill.recipe.load import resolve
        from distill.recipe.schema import json_schema
        from distill.recipe.text import to_yaml
    if schema:
        typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        return
    values = default_values(teacher=teacher, student=student, data=data, labels=labels, output=out)
    typer.echo(to_yaml(resolve(values, where="command line"), comments=True), nl=False)


def cache(
    recipe: RecipePath,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print the size and the time; build nothing.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Write the teacher's embeddings to disk, or estimate what that costs."""
    with needs_train_extra("cache"):
        from distill.run.estimate import print_estimate
        from distill.run.pipeline import build_cache
    config = _load(recipe, overrides)
    if estimate:
        print_estimate(config)
    else:
        build_cache(config)


def train(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Train the student; the same command resumes a run that was stopped."""
    with needs_train_extra("train"):
        from distill.run.pipeline import train as train_student
    train_student(_load(recipe, overrides))


def doctor(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Check a few samples and the models before a long run; exit status 1 on problems."""
    try:
        with needs_train_extra("doctor"):
            from distill.doctor.run import run_doctor
        healthy = run_doctor(_load(recipe, overrides))
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("stopped; the doctor writes nothing") from error
    if not healthy:
        raise typer.Exit(PROBLEMS_FOUND)


def evaluate(
    run_folder: RunPath, checkpoint: WhichCheckpoint = "last", overrides: Overrides = None
) -> None:
    """Measure the student and its teacher, and write the report."""
    with needs_train_extra("eval"):
        from distill.run.pipeline import evaluate as measure
    measure(run_folder, checkpoint=checkpoint, overrides=overrides or ())


def export(
    run_folder: RunPath,
    out: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="The bundle to write; in the run folder by default."),
    ] = None,
    checkpoint: WhichCheckpoint = "last",
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Labels for the bundle to classify with, one per line."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Write the student as ONNX, verified against torch."""
    with needs_train_extra("export"):
        from distill.labels.names import name_labels
        from distill.run.pipeline import export as write_bundle
    changes = list(overrides or ())
    if labels is not None:
        named = name_labels(labels, field="--labels")
        changes.append(f"export.labels={json.dumps(named, ensure_ascii=False)}")
    write_bundle(run_folder, out=out, checkpoint=checkpoint, overrides=changes)


def shards(
    data: Annotated[
        str, typer.Argument(metavar="RECIPE|DATA", help="A recipe, or data as --data takes it.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder for the tars.")],
    size: Annotated[
        int | None,
        typer.Option(min=16, metavar="N", help="Shrink pictures to a shorter side of N pixels."),
    ] = None,
    per_shard: Annotated[int, typer.Option(min=1, metavar="N", help="Samples per tar.")] = 1000,
    overrides: Overrides = None,
) -> None:
    """Write the pictures and captions of any data as WebDataset tars."""
    with needs_train_extra("shards"):
        from distill.run.shards_stage import write_data
    write_data(data, out, size=size, per_shard=per_shard, overrides=overrides or ())


def _load(recipe: Path, overrides: list[str] | None, *, out: Path | None = None) -> Any:
    from distill.recipe.load import load_recipe

    output = [] if out is None else [f"output={json.dumps(str(out))}"]
    return load_recipe(recipe, overrides=[*(overrides or ()), *output])
