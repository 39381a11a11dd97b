"""Data sets of the Hugging Face hub and local copies of them, read by the datasets library."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill.basis.words import shorten
from distill.data.marks import SAVED_FILES
from distill.data.sample import Skip, Source
from distill.data.tables.arrow import ArrowColumns, EmbeddedSource, no_log, reason
from distill.data.tables.rows import CAPTION_COLUMN, IMAGE_COLUMN, LABEL_COLUMN, ColumnNames, Row
from export.runtime.errors import DataError

_TRAIN = "train"


def open_hub(
    path: str,
    *,
    config_name: str | None = None,
    split: str | None = None,
    image_column: str = IMAGE_COLUMN,
    caption_column: str | None = CAPTION_COLUMN,
    label_column: str | None = LABEL_COLUMN,
) -> Source:
    """Open a data set by its name on the hub, or a folder with a copy of one.

    The folder was written by ``save_to_disk``, or holds Parquet or Arrow files. ``split`` is in
    the library's terms (``train+validation``); the default is ``train``, or a folder's only split.
    The data set contains the pictures, which stay undecoded until they are opened.

    Raises:
        DataError: The data set does not exist or cannot be fetched, or a column does not fit.
    """
    folder = Path(path)
    if folder.is_file():
        raise DataError(
            f"{path}: found a file, but kind: hub takes a name on the hub or a folder; use "
            "kind: table for a Parquet file"
        )
    if folder.is_dir():
        data = _local(folder, config_name=config_name, split=split)
    else:
        data = _remote(path, config_name=config_name, split=split or _TRAIN)
    names = ColumnNames(image_column, caption_column, label_column)
    columns = ArrowColumns(data.features, names, table=path)
    if not columns.embedded:
        raise DataError(
            f"{path}: column {shorten(columns.image)} (image_column) holds texts, not pictures; "
            "use kind: table for names of files"
        )
    # Rows of different splits share keys; this name tells their caches apart.
    name = ":".join(part for part in (path, config_name, split) if part is not None)
    return EmbeddedSource(name, _Table(path, data, columns))


class _Table:
    """A dataset in memory-mapped files."""

    def __init__(self, path: str, data: Any, columns: ArrowColumns) -> None:
        self._path = path
        self._columns = columns
        self.image = columns.image
        with _guarded(path):
            # Arrow trusts what a file says of its buffers, and would read beyond their ends.
            self._data = columns.undecoded(data)
            self._data.data.validate(full=True)

    def rows(self) -> Iterator[Row | Skip]:
        with _guarded(self._path):
            yield from self._columns.rows(self._data.flatten())

    def pictures(self) -> Any:
        return self._data


def _local(folder: Path, *, config_name: str | None, split: str | None) -> Any:
    from datasets import DatasetDict, load_dataset, load_dataset_builder, load_from_disk

    with _guarded(str(folder)):
        if not any((folder / name).is_file() for name in SAVED_FILES):
            builder = load_dataset_builder(str(folder), config_name)
            files = getattr(builder.config, "data_files", None) or [_TRAIN]
            chosen = split or _only(folder, list(map(str, files)))
            return load_dataset(str(folder), config_name, split=chosen)
        data = load_from_disk(str(folder))
        if isinstance(data, DatasetDict):
            return _part(folder, data, split)
        if split is not None and data.split is not None and split != str(data.split):
            raise DataError(
                f"{folder}: split: found {split}, but this is a copy of {data.split} alone; "
                "remove split, or give another copy"
            )
        return data


def _part(folder: Path, data: Any, split: str | None) -> Any:
    from datasets import concatenate_datasets

    names = (split or _only(folder, list(data))).split("+")
    for name in names:
        if name not in data:
            raise DataError(
                f"{folder}: there is no split {shorten(name)}; the splits are {', '.join(data)}"
            )
    return concatenate_datasets([data[name] for name in names])


def _only(folder: Path, splits: Sequence[str]) -> str:
    if _TRAIN in splits:
        return _TRAIN
    if len(splits) == 1:
        return splits[0]
    raise DataError(f"{folder}: its splits are {', '.join(splits) or 'none'}; set split to one")


def _remote(name: str, *, config_name: str | None, split: str) -> Any:
    from datasets import load_dataset

    try:
        with _guarded(name):
            return load_dataset(name, config_name, split=split)
    except DataError as error:
        raise DataError(
            f"{error}; there is no such folder either. If the hub is out of reach, get a copy "
            f"elsewhere (datasets.load_dataset({name!r}).save_to_disk(FOLDER)) and give its folder"
        ) from error


@contextmanager
def _guarded(path: str) -> Iterator[None]:
    try:
        with no_log():
            yield
    except DataError:
        raise
    except Exception as error:  # The library raises almost any error for damaged copies.
        raise DataError(f"{path}: the data set cannot be read: {reason(error)}") from error
