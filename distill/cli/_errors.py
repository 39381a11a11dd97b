"""What a failed command says, and the exit status that it ends with."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distill.basis.progress import is_main_process
from export.runtime.errors import MissingExtraError

PROBLEMS_FOUND, USER_ERROR, INTERRUPTED = 1, 2, 130
STOPPED = "stopped; finished work is kept, and the same command resumes from there"
SECONDS_FOR_THE_MAIN_PROCESS = 10.0
_OURS = ("distill", "students", "export")


class StoppedError(Exception):
    """Ctrl-C on its way past typer; the text says what was saved."""


@contextmanager
def needs_train_extra(command: str) -> Iterator[None]:
    """Name the extra to install if an import in the block misses a library."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in _OURS:
            raise
        raise MissingExtraError(
            f"clip-distill {command} needs {missing or 'a library'}, which is not installed: "
            "pip install 'clip-distill[train]'"
        ) from error


def usage_line(error: Any) -> str:
    """Return one line for a usage error of typer's, ending in the command that prints help."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "clip-distill"
    message = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    return f"{command}: {message}; see {command} --help"


def say(text: str) -> None:
    """Print a line on standard error, once for all processes.

    The main process prints at once. The others wait, because a launcher ends them as soon as the
    main process has failed. One that outlives the wait failed alone and prints its own line.
    """
    if not is_main_process():
        time.sleep(SECONDS_FOR_THE_MAIN_PROCESS)
    sys.stderr.write(text.rstrip("\n") + "\n")
