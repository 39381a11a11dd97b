"""Tables: CSV, TSV or Parquet with a column of pictures, one of captions and perhaps labels."""

import posixpath
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.data.columns import SampleColumns
from distill.data.delimited import read_delimited
from distill.data.parquet import Parquet
from distill.data.rows import LABEL_COLUMN, ColumnNames, Row, shorten
from distill.data.sample import Sample, Skip, Source
from export.runtime.errors import DataError

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
PICTURE_FOLDERS = ("images", "Images")


def open_table(
    path: str | Path,
    *,
    image_column: str = "image",
    caption_column: str | None = "caption",
    label_column: str | None = LABEL_COLUMN,
    image_root: str | Path | None = None,
) -> Source:
    """Open a table: several rows of one picture are one sample with several captions.

    Pictures are looked for beside the table, then in ``images/`` or ``Images/`` beside it; under
    ``image_root`` alone where that is given. Those that are missing, and rows that cannot be
    used, are in the source's ``skipped``. An empty caption is none; ``caption_column=None`` leaves
    all of them out. The column ``label`` is read where there is one, any other must be there.

    Raises:
        DataError: the table or a column of it cannot be read, or none of its pictures is there.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise DataError(f"{path}: a table was expected here, but there is {found}")
    if suffix not in TABLE_SUFFIXES:
        raise DataError(
            f"{path}: tables end in {', '.join(TABLE_SUFFIXES)}, not in {shorten(suffix)}"
        )
    names = ColumnNames(image_column, caption_column, label_column)
    if suffix == ".parquet":
        parquet = Parquet(path, names)
        if parquet.embedded:
            return EmbeddedSource(path, parquet)
        rows = parquet.rows()
    else:
        rows = read_delimited(path, names)
    return TableSource(path, rows, roots=_roots(path, image_root))


class TableSource:
    """The pictures that the rows of a table name, each in one of the folders ``roots``."""

    def __init__(self, path: Path, rows: Iterator[Row | Skip], *, roots: list[Path]) -> None:
        """Read all rows and look for every picture, without opening one."""
        self.name = str(path)
        self._roots = roots
        self._places = array("b")
        self._columns = SampleColumns()
        self._gather(path, rows)
        self._columns.freeze()
        if not len(self):
            raise DataError(_nothing_there(self.name, self.skipped))

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, index: int) -> Sample:
        number = range(len(self))[index]
        key = self._columns.key(number)
        return Sample(
            key=key,
            image=self._roots[self._places[number]] / key,
            captions=self._columns.captions(number),
            label=self._columns.label(number),
        )

    def _gather(self, path: Path, rows: Iterator[Row | Skip]) -> None:
        skipped: list[Skip] = []
        by_key: dict[str, int | None] = {}
        by_file: dict[str, int] = {}
        self.rows = 0
        for row in rows:
            self.rows += 1
            if isinstance(row, Skip):
                skipped.append(row)
                continue
            key = posixpath.normpath(row.image)
            if key not in by_key:
                by_key[key] = self._add(key, by_file)
                if by_key[key] is None:
                    folders = ", ".join(str(root) for root in self._roots)
                    reason = f"there is no picture {shorten(row.image)} in {folders}"
                    skipped.append(Skip(_where(path, row), reason))
            number = by_key[key]
            if number is not None:
                clash = _fill(self._columns, number, row)
                if clash is not None:
                    skipped.append(Skip(_where(path, row), clash, kind="row"))
        self.skipped = tuple(skipped)

    def _add(self, key: str, by_file: dict[str, int]) -> int | None:
        """Return the number of a picture, a new one for a new file; None where it is missing."""
        for place, root in enumerate(self._roots):
            file = root / key
            if _is_file(file):
                # images/a.jpg beside the table, and a.jpg in images/, are the same picture.
                name = posixpath.normpath(file.as_posix())
                if name not in by_file:
                    by_file[name] = self._columns.add(key)
                    self._places.append(place)
                return by_file[name]
        return None


class EmbeddedSource:
    """The pictures inside of a Parquet file, one for each row."""

    def __init__(self, path: Path, parquet: Parquet) -> None:
        self.name = str(path)
        self._parquet = parquet
        self._columns = SampleColumns()
        seen: set[str] = set()
        for row in parquet.rows():
            # A row is only ever skipped for the name of its picture, which is not needed here.
            assert isinstance(row, Row)
            key = row.image or f"row-{row.number}"
            key = f"{key}#row-{row.number}" if key in seen else key
            seen.add(key)
            _fill(self._columns, self._columns.add(key), row)
        self._columns.freeze()
        self._pictures: Any = parquet.pictures()
        self.skipped: tuple[Skip, ...] = ()
        self.rows = len(self)

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, index: int) -> Sample:
        number = range(len(self))[index]
        return Sample(
            key=self._columns.key(number),
            image=self._parquet.picture(self._pictures, number),
            captions=self._columns.captions(number),
            label=self._columns.label(number),
        )


def _fill(columns: SampleColumns, number: int, row: Row) -> str | None:
    """Add a row to its picture, or say why it does not fit."""
    if row.label:
        label = columns.add_label(number, row.label)
        if label != row.label:
            return (
                f"label {shorten(row.label)} where an earlier row of the same picture has "
                f"{shorten(label)}"
            )
    for caption in row.captions:
        columns.add_caption(number, caption)
    return None


def _roots(path: Path, image_root: str | Path | None) -> list[Path]:
    if image_root is None:
        beside = [path.parent / name for name in PICTURE_FOLDERS]
        return [path.parent, *(folder for folder in beside if folder.is_dir())]
    root = Path(image_root)
    if not root.is_dir():
        raise DataError(f"{root}: image_root is no folder; it is where {path.name}'s pictures are")
    return [root]


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):
        # The system refuses some texts as names: too long, or with a NUL byte inside.
        return False


def _where(path: Path, row: Row) -> str:
    return (
        f"{path}: row {row.number}" if path.suffix.lower() == ".parquet" else f"{path}:{row.number}"
    )


def _nothing_there(name: str, skipped: tuple[Skip, ...]) -> str:
    pictures = [skip for skip in skipped if skip.kind == "picture"]
    if not pictures:
        return f"{name}: no row can be used; the first is {skipped[0].where}: {skipped[0].reason}"
    return (
        f"{name}: none of its {len(pictures)} pictures is there; the first is {pictures[0].where}: "
        f"{pictures[0].reason}; set image_root to the folder that they are in"
    )
