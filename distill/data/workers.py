"""Worker processes that read data: their interrupts and their errors."""

import signal
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

from export.runtime.errors import ClipDistillError

_Made = TypeVar("_Made")


def from_workers(loader: Iterable[_Made]) -> Iterator[_Made]:
    """Yield what worker processes produce, and raise a worker's error as the worker raised it.

    Raises:
        ClipDistillError: A worker raised it; the message is the worker's single line.
    """
    try:
        yield from loader
    except ClipDistillError as error:
        # torch puts the worker's traceback before the line.
        head, _, line = str(error).rstrip().rpartition("\n")
        if not head:
            raise
        raise type(error)(line.partition(": ")[2]) from error


def ignore_interrupts(_worker: int) -> None:
    """Leave Ctrl-C to the main process, which saves before it ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
