"""The command line: one row per command, and one line on standard error for every mistake.

The commands import what they need inside their functions, so ``--help`` is quick and loads no
torch.
"""

import errno
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from distill.basis.progress import is_main_process
from distill.cli import demo, device, run
from distill.cli._errors import INTERRUPTED, STOPPED, USER_ERROR, StoppedError, say, usage_line
from export.runtime.errors import ClipDistillError

_COMMANDS: Mapping[str, Callable[..., None]] = {
    "run": run.run,
    "recipe": run.recipe,
    "cache": run.cache,
    "train": run.train,
    "doctor": run.doctor,
    "eval": run.evaluate,
    "export": run.export,
    "shards": run.shards,
    "classify": device.classify,
    "embed": device.embed,
    "demo": demo.demo,
}
# The machine says no: the disk is full or read-only, or permission is denied.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
# In all versions of typer, every usage error derives from this class.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    A user's mistake gives one line on standard error and status 2, Ctrl-C one line and 130.
    """
    try:
        result = _app()(
            list(sys.argv[1:] if arguments is None else arguments),
            prog_name="clip-distill",
            standalone_mode=False,
        )
    except StoppedError as error:
        if is_main_process():
            say(str(error) or STOPPED)
        return INTERRUPTED
    except ClipDistillError as error:
        say(str(error))
        return USER_ERROR
    except _UsageError as error:
        say(usage_line(error))
        return USER_ERROR
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        place = error.filename or "the disk"
        say(f"{place}: {error.strerror}; make room, fix the permissions or choose another place")
        return USER_ERROR
    if result == INTERRUPTED:
        say(STOPPED)
    return result if isinstance(result, int) else 0


def _app() -> typer.Typer:
    """Return the app with all commands."""
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Distil a large frozen CLIP teacher into a compact student and ship it.",
    )
    app.callback(invoke_without_command=True)(_start)
    for name, function in _COMMANDS.items():
        app.command(name)(_stoppable(function))
    return app


def _stoppable(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command that Ctrl-C ends with the text of its KeyboardInterrupt."""

    @functools.wraps(function)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except KeyboardInterrupt as error:
            raise StoppedError(str(error)) from error

    return guarded


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
