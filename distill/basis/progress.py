"""Show progress on the main process: a bar on a terminal, otherwise a line now and then."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

_SECONDS_BETWEEN_LINES = 15.0


class Bar:
    """The progress of one task."""

    def __init__(self, console: Console, progress: Progress | None, title: str, total: int) -> None:
        """Show a bar if ``progress`` is given, otherwise plain lines."""
        self._console = console
        self._progress = progress
        self._title = title
        self._total = total
        self._last_line = time.monotonic()
        self._task = None if progress is None else progress.add_task(title, total=total, note="")

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` of all steps are done, followed by a note."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, note=note)
        elif done >= self._total or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(f"{self._title} {done}/{self._total} {note}".rstrip(), style=None)


def is_main_process() -> bool:
    """Tell whether this is the only process, or the first that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def make_console() -> Console:
    """Return a console on standard error that is silent on all but the main process."""
    return Console(
        stderr=True,
        quiet=not is_main_process(),
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


@contextmanager
def progress_bar(title: str, total: int, *, done: int = 0) -> Iterator[Bar]:
    """Show the progress of a task while the block runs.

    Args:
        title: What the task does.
        total: How many steps it has.
        done: How many steps are already done.

    Yields:
        The bar; its ``update`` says how many steps are done.
    """
    console = make_console()
    if not console.is_terminal or console.quiet:
        yield Bar(console, None, title, total)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as progress:
        bar = Bar(console, progress, title, total)
        bar.update(done)
        yield bar
