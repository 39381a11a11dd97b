"""The command line. What a command needs is imported inside it, so that ``--help`` is quick."""

import errno
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from distill.basis.progress import is_main_process
from distill.cli.options import (
    BundlePath,
    Checkpoint,
    DataPath,
    LabelFile,
    Overrides,
    RecipePath,
    RunPath,
    StudentName,
    TeacherName,
    Which,
)
from export.runtime.errors import ClipDistillError, DataError, MissingExtraError, RecipeError

OURS = ("distill", "students", "export")
WRONG, USER_ERROR, INTERRUPTED = 1, 2, 130
SECONDS_FOR_THE_MAIN_PROCESS = 10.0
STOPPED = "stopped; what was finished is kept, and the same command goes on from there"
# What the machine refuses: no space, no rights, a read-only disk.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
# Every mistake in the use of an option derives from it, in all versions of typer.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Distil a large frozen CLIP teacher into a compact student and ship it.",
)


class _StoppedError(Exception):
    """Ctrl-C, carried past typer; its text says what was saved."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    A user's mistake is one line on standard error and status 2, Ctrl-C one line and 130.
    """
    try:
        result = app(
            list(sys.argv[1:] if arguments is None else arguments),
            prog_name="clip-distill",
            standalone_mode=False,
        )
    except _StoppedError as error:
        if is_main_process():
            _say(str(error) or STOPPED)
        return INTERRUPTED
    except ClipDistillError as error:
        _say(str(error))
        return USER_ERROR
    except _UsageError as error:
        _say(_usage_line(error))
        return USER_ERROR
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        _say(f"{error.filename or 'the disk'}: {error.strerror}; free it or choose another place")
        return USER_ERROR
    if result == INTERRUPTED:
        _say(STOPPED)
    return result if isinstance(result, int) else 0


def _command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command that Ctrl-C ends with the line of its KeyboardInterrupt."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(*arguments: Any, **options: Any) -> None:
            try:
                function(*arguments, **options)
            except KeyboardInterrupt as error:
                raise _StoppedError(str(error)) from error

        app.command(name)(guarded)
        return function

    return register


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from distill import __version__

        typer.echo(f"clip-distill {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


@_command("run")
def run(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="YAML file with the recipe.")
    ] = None,
    teacher: TeacherName = None,
    student: StudentName = None,
    data: DataPath = None,
    labels: LabelFile = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The run folder.")] = None,
    overrides: Overrides = None,
) -> None:
    """Cache, train, evaluate and export, by a recipe or by the default one."""
    named = (teacher, student, data, labels)
    if recipe is not None and any(value is not None for value in named):
        raise RecipeError(
            f"{recipe}: given beside --teacher, --student, --data or --labels; give a recipe or "
            "those"
        )
    if recipe is None and data is None:
        raise RecipeError("run: give a RECIPE, or --data with the pictures to learn from")
    with _train_extra("run"):
        from distill.recipe.load import default_values, resolve
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


@_command("recipe")
def recipe(
    teacher: TeacherName = None,
    student: StudentName = None,
    data: DataPath = None,
    labels: LabelFile = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The run folder.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
) -> None:
    """Print the default recipe with a sentence for each field."""
    with _train_extra("recipe"):
        from distill.recipe.load import default_values, json_schema, resolve, to_yaml
    if schema:
        typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        return
    values = default_values(teacher=teacher, student=student, data=data, labels=labels, output=out)
    typer.echo(to_yaml(resolve(values, where="command line"), comments=True), nl=False)


@_command("cache")
def cache(
    recipe: RecipePath,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print bytes and time, and build nothing.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Write the teacher's embeddings to disk, or tell what that would cost."""
    with _train_extra("cache"):
        from distill.run.estimate import print_estimate
        from distill.run.pipeline import build_cache
    config = _load(recipe, overrides)
    if estimate:
        print_estimate(config)
    else:
        build_cache(config)


@_command("train")
def train(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Train the student; the same command goes on where it stopped."""
    with _train_extra("train"):
        from distill.run.pipeline import train as train_student
    train_student(_load(recipe, overrides))


@_command("doctor")
def doctor(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Look for what would waste a run, in a few samples and the models; status 1 where it is."""
    try:
        with _train_extra("doctor"):
            from distill.doctor.run import run_doctor
        healthy = run_doctor(_load(recipe, overrides))
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("stopped; the doctor writes nothing") from error
    if not healthy:
        raise typer.Exit(WRONG)


@_command("eval")
def evaluate(
    run_folder: RunPath, checkpoint: Which = Checkpoint.LAST, overrides: Overrides = None
) -> None:
    """Measure the student beside its teacher and write the report."""
    with _train_extra("eval"):
        from distill.run.pipeline import evaluate as measure
    measure(run_folder, checkpoint=checkpoint.value, overrides=overrides or ())


@_command("export")
def export(
    run_folder: RunPath,
    out: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="Where to; in the run folder unless given."),
    ] = None,
    checkpoint: Which = Checkpoint.LAST,
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Labels that the bundle classifies with, one a line."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Write the student as ONNX, verified against torch."""
    with _train_extra("export"):
        from distill.labels.label_set import name_labels
        from distill.run.pipeline import export as write_bundle
    changes = list(overrides or ())
    if labels is not None:
        named = name_labels(labels, field="--labels")
        changes.append(f"export.labels={json.dumps(named, ensure_ascii=False)}")
    write_bundle(run_folder, out=out, checkpoint=checkpoint.value, overrides=changes)


@_command("shards")
def shards(
    data: Annotated[
        str, typer.Argument(metavar="RECIPE|DATA", help="A recipe, or data as --data takes it.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the tars go.")],
    size: Annotated[
        int | None,
        typer.Option(min=16, metavar="N", help="Shrink pictures to a shorter side of N pixels."),
    ] = None,
    per_shard: Annotated[int, typer.Option(min=1, metavar="N", help="Samples in a tar.")] = 1000,
    overrides: Overrides = None,
) -> None:
    """Write the pictures and captions of any data as WebDataset tars."""
    with _train_extra("shards"):
        from distill.run.shards_stage import write_data
    write_data(data, out, size=size, per_shard=per_shard, overrides=overrides or ())


@_command("classify")
def classify(
    bundle: BundlePath,
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture.")],
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B|FILE", help="Labels, or a file with one a line; else the bundle's own."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many labels to show, best first.")] = 5,
) -> None:
    """Tell which label fits a picture, by a bundle; needs no torch."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from distill.labels.names import listed_labels

    names = None if labels is None else listed_labels(labels, field="--labels")
    from export.runtime import EdgeModel

    ranking = EdgeModel.load(bundle).classify(picture, names)
    table = Table(box=None, pad_edge=False)
    table.add_column("label", overflow="fold")
    table.add_column("probability", justify="right")
    for label, probability in ranking[:top]:
        table.add_row(Text(label), f"{probability:.1%}")
    Console().print(table)


@_command("embed")
def embed(
    bundle: BundlePath,
    out: Annotated[Path, typer.Option(metavar="FILE.npy", help="Where to write the embeddings.")],
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PICTURES...]", help="Pictures, folders of them, or a TSV in base64."
        ),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(metavar="NAME:TYPE:N,…", help="Columns of the TSV, e.g. image:str:1."),
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts instead, one a line.")
    ] = None,
) -> None:
    """Embed pictures or texts by a bundle; needs no torch. What each row is, is written beside."""
    if (texts is None) == (not pictures):
        raise DataError("embed: give pictures, or --texts with a file of texts, and not both")
    from distill.cli.embed import check_place, embed_places, write_embedded
    from distill.cli.embed_lines import embed_texts
    from export.runtime import EdgeModel

    check_place(out)
    try:
        if texts is None:
            embedded = embed_places(bundle, pictures or (), schema=schema)
        else:
            embedded = embed_texts(EdgeModel.load(bundle), texts)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"stopped; nothing was written to {out}") from error
    names = write_embedded(embedded, out)
    for reason in embedded.unreadable:
        _say(f"skipped {reason}")
    (rows, width), what = embedded.features.shape, embedded.kind
    skipped = f"; {len(embedded.unreadable)} skipped" if embedded.unreadable else ""
    typer.echo(f"{out}: {rows} embeddings of width {width}, their {what} in {names}{skipped}")


@_command("demo")
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to.")] = Path("runs/demo"),
    overrides: Overrides = None,
) -> None:
    """Tell the whole story offline on procedural pictures, in a few minutes."""
    with _train_extra("demo"):
        from distill.demo.run import run_demo
    run_demo(out, overrides=overrides or ())


def _load(recipe: Path, overrides: list[str] | None, *, out: Path | None = None) -> Any:
    from distill.recipe.load import load_recipe

    output = [] if out is None else [f"output={json.dumps(str(out))}"]
    return load_recipe(recipe, overrides=[*(overrides or ()), *output])


@contextmanager
def _train_extra(command: str) -> Iterator[None]:
    """Say which extra to install where an import inside does not find a library."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in OURS:
            raise
        raise MissingExtraError(
            f"clip-distill {command} needs {missing or 'a library'}, which is not installed: "
            "pip install 'clip-distill[train]'"
        ) from error


def _usage_line(error: Any) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "clip-distill"
    message = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    return f"{command}: {message}; see {command} --help"


def _say(text: str) -> None:
    """Print lines on standard error, once for all processes.

    The main process speaks at once. A launcher ends the others as soon as it has failed; one that
    is still there after a while failed alone, and speaks for itself.
    """
    if not is_main_process():
        time.sleep(SECONDS_FOR_THE_MAIN_PROCESS)
    sys.stderr.write(text.rstrip("\n") + "\n")
