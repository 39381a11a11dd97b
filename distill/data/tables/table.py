"""Tables: files with a column of pictures, one of captions and perhaps one of labels."""

import posixpath
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from distill.basis.words import shorten
from distill.data.marks import TABLE_SUFFIXES
from distill.data.sample import Sample, Skip, Source
from distill.data.tables._columns import SampleColumns, fill_row
from distill.data.tables._delimited import read_delimited
from distill.data.tables._json_rows import read_json, read_json_lines
from distill.data.tables._parquet import Parquet
from distill.data.tables.arrow import EmbeddedSource
from distill.data.tables.rows import CAPTION_COLUMN, IMAGE_COLUMN, LABEL_COLUMN, ColumnNames, Row
from export.runtime.errors import DataError

_DELIMITED_SUFFIXES = (".csv", ".tsv", ".txt")
_PICTURE_FOLDERS = ("images", "Images")


def open_table(
    path: str | Path,
    *,
    image_column: str = IMAGE_COLUMN,
    caption_column: str | None = CAPTION_COLUMN,
    label_column: str | None = LABEL_COLUMN,
    id_column: str | None = None,
    image_root: str | Path | None = None,
    columns: Sequence[str] | None = None,
    split: str | None = None,
) -> Source:
    """Open a table: all rows with the same picture are one sample with several captions.

    Pictures are looked up in the folder of the table, then in its subfolders ``images/`` and
    ``Images/``; if ``image_root`` is given, only there. Missing pictures and rows that cannot be
    used are in the source's ``skipped``. An empty caption counts as none;
    ``caption_column=None`` ignores all captions. The column ``label`` is optional; a label column
    of any other name must exist. Pictures with the same value in ``id_column`` are held out
    together. ``columns`` are the column names of a CSV or TSV without a header. ``split`` names the
    splits to read from Karpathy's JSON, joined by "+".

    Raises:
        DataError: The table or one of its columns cannot be read, or all pictures are missing.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise DataError(f"{path}: must be a table; found {found}")
    if suffix not in TABLE_SUFFIXES:
        raise DataError(
            f"{path}: a table must end in {', '.join(TABLE_SUFFIXES)}, not in {shorten(suffix)}"
        )
    names = ColumnNames(image_column, caption_column, label_column, id_column)
    if columns is not None and suffix not in _DELIMITED_SUFFIXES:
        raise DataError(
            f"{path}: columns: only {', '.join(_DELIMITED_SUFFIXES)} may lack a header; remove it"
        )
    if split is not None and suffix != ".json":
        raise DataError(f"{path}: split: only Karpathy's JSON has splits; remove it")
    if suffix == ".parquet":
        parquet = Parquet(path, names)
        if parquet.embedded:
            return EmbeddedSource(str(path), parquet)
    rows = parquet.rows() if suffix == ".parquet" else _rows(path, names, columns, split)
    return _TableSource(path, rows, roots=_roots(path, image_root))


def _rows(
    path: Path, names: ColumnNames, columns: Sequence[str] | None, split: str | None
) -> Iterator[Row | Skip]:
    match path.suffix.lower():
        case ".jsonl":
            return read_json_lines(path, names)
        case ".json":
            return read_json(path, names, split=split)
        case _:
            return read_delimited(path, names, columns)


class _TableSource:
    """The pictures that the rows of a table name, each in one of the folders ``roots``."""

    def __init__(self, path: Path, rows: Iterator[Row | Skip], *, roots: list[Path]) -> None:
        """Read all rows and look up every picture, without opening any."""
        self.name = str(path)
        self._roots = roots
        self._places = array("b")
        self._columns = SampleColumns()
        self._gather(path, rows)
        self._columns.freeze()
        if not len(self):
            raise DataError(_no_pictures(self.name, self.skipped))

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
            group=self._columns.group(number),
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
                clash = fill_row(self._columns, number, row)
                if clash is not None:
                    skipped.append(Skip(_where(path, row), clash, kind="row"))
        self.skipped = tuple(skipped)

    def _add(self, key: str, by_file: dict[str, int]) -> int | None:
        """Return the number of a picture, a new one for a new file; None if it is missing."""
        for place, root in enumerate(self._roots):
            file = root / key
            if _is_file(file):
                # images/a.jpg in the table's folder and a.jpg in images/ are the same picture.
                name = posixpath.normpath(file.as_posix())
                if name not in by_file:
                    by_file[name] = self._columns.add(key)
                    self._places.append(place)
                return by_file[name]
        return None


def _roots(path: Path, image_root: str | Path | None) -> list[Path]:
    if image_root is None:
        subfolders = [path.parent / name for name in _PICTURE_FOLDERS]
        return [path.parent, *(folder for folder in subfolders if folder.is_dir())]
    root = Path(image_root)
    if not root.is_dir():
        raise DataError(f"{root}: image_root must be the folder with the pictures of {path.name}")
    return [root]


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):
        # The system refuses some texts as names: they are too long or contain a NUL byte.
        return False


def _where(path: Path, row: Row) -> str:
    return (
        f"{path}: row {row.number}"
        if path.suffix.lower() in (".parquet", ".json")
        else f"{path}:{row.number}"
    )


def _no_pictures(name: str, skipped: tuple[Skip, ...]) -> str:
    pictures = [skip for skip in skipped if skip.kind == "picture"]
    if not pictures:
        return f"{name}: no row can be used; the first is {skipped[0].where}: {skipped[0].reason}"
    return (
        f"{name}: {len(pictures)} of its {len(pictures)} pictures are missing; the first is "
        f"{pictures[0].where}: {pictures[0].reason}; set image_root to the folder with the pictures"
    )
