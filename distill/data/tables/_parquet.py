"""Parquet, read by the Hugging Face datasets library."""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.data.sample import Skip
from distill.data.tables.arrow import ArrowColumns, one_line
from distill.data.tables.rows import ColumnNames, Row
from export.runtime.errors import DataError

_MAGIC = b"PAR1"


class Parquet:
    """A Parquet file with columns that exist and have readable types."""

    def __init__(self, path: Path, names: ColumnNames) -> None:
        """Read only the schema.

        Raises:
            DataError: The file is not Parquet, or a column is missing or has the wrong type.
        """
        self.path = path
        _check_magic(path)
        self._columns = ArrowColumns(self._load(streaming=True).features, names, table=str(path))
        self.embedded = self._columns.embedded
        self.image = self._columns.image

    def rows(self) -> Iterator[Row | Skip]:
        """Yield the rows, numbered from 1; the name of an embedded picture may be ''.

        Raises:
            DataError: The file is damaged or has no rows.
        """
        with self._one_line():
            if self.embedded:
                data = self.pictures().flatten()
            else:
                data = self._load(streaming=True, columns=self._columns.texts)
            yield from self._columns.rows(data)

    def pictures(self) -> Any:
        """Return the columns as a memory-mapped Dataset; embedded pictures stay undecoded."""
        with self._one_line():
            data = self._load(streaming=False, columns=self._columns.all)
            return self._columns.undecoded(data)

    def _load(self, *, streaming: bool, columns: list[str] | None = None) -> Any:
        from datasets import load_dataset

        with self._one_line():
            return load_dataset(
                "parquet",
                data_files=[glob.escape(str(self.path))],
                split="train",
                streaming=streaming,
                columns=columns,
            )

    def _one_line(self) -> Any:
        return one_line(f"{self.path}: the Parquet file")


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
            tail = file.seek(0, 2) >= 3 * len(_MAGIC) and file.seek(-len(_MAGIC), 2) and file.read()
    except OSError as error:
        raise DataError(f"{path}: the table cannot be read: {error.strerror}") from error
    if head != _MAGIC or tail != _MAGIC:
        raise DataError(
            f"{path}: it is not a Parquet file, or it is cut off (a whole file begins and ends "
            f"with {_MAGIC.decode()}); write it again"
        )
