"""Pictures in tars, read when they are opened."""

import io
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.data.shards.paths import TarFile, is_remote, one_line, read_range
from export.runtime.errors import DataError

MOST_OPEN = 64


@dataclass(frozen=True)
class TarPicture:
    """A picture in a tar: the ``size`` bytes from ``offset`` on."""

    tars: "Tars"
    tar: int
    offset: int
    size: int

    @property
    def name(self) -> str:
        """The tar, and the place in it."""
        return f"{self.tars.names[self.tar]} at byte {self.offset:,}"

    def read(self) -> bytes:
        """Return its undecoded bytes.

        Raises:
            DataError: The tar is missing, or has changed since it was indexed.
        """
        return self.tars.read(self.tar, self.offset, self.size)


class Tars:
    """Tars by number. Each process keeps the tars open that it has read last."""

    def __init__(self, tars: Sequence[TarFile]) -> None:
        """Take the tars as they were indexed; none is opened yet."""
        self._tars = tars
        self._open: OrderedDict[int, io.FileIO] = OrderedDict()
        self._process = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return Tars, (self._tars,)

    def __del__(self) -> None:
        self._close()

    @property
    def names(self) -> list[str]:
        """The names of the tars."""
        return [tar.name for tar in self._tars]

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Return a range of bytes of a tar.

        Raises:
            DataError: It cannot be read, or has changed since it was indexed.
        """
        tar = self._tars[number]
        with one_line(tar.name):
            if is_remote(tar.name):
                content = read_range(tar.name, offset, size)
            else:
                file = self._file(number)
                file.seek(offset)
                content = file.read(size)
        if len(content) < size:
            raise DataError(f"{tar.name}: it has become shorter since it was indexed")
        return content

    def _file(self, number: int) -> io.FileIO:
        if self._process != os.getpid():
            # A forked process shares file positions with its parent, so it opens its own files.
            self._close()
            self._process = os.getpid()
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        tar = self._tars[number]
        file = io.FileIO(tar.name)
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != (tar.size, tar.changed):
            file.close()
            raise DataError(f"{tar.name}: it has changed since it was indexed; start again")
        if len(self._open) >= MOST_OPEN:
            self._open.popitem(last=False)[1].close()
        self._open[number] = file
        return file

    def _close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()
