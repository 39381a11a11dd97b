"""Parquet, read by the Hugging Face datasets library; the one file here that knows it."""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill.data.rows import ColumnNames, Row, find_columns, shorten
from distill.data.sample import Skip
from export.runtime.errors import DataError

BATCH_ROWS = 4096
MAGIC = b"PAR1"


class Parquet:
    """A Parquet file, its columns found and of types that can be read.

    Pictures are names of files, or embedded: binary, or the ``{bytes, path}`` that datasets
    writes. A caption is a string or a list of them, a label a string or a whole number.
    """

    def __init__(self, path: Path, names: ColumnNames) -> None:
        """Read the schema alone.

        Raises:
            DataError: no Parquet file, or a column missing or of another type.
        """
        self.path = path
        _check_magic(path)
        features = self._load(streaming=True).features
        columns = list(features)
        places = find_columns(columns, names, table=str(path))
        self._image = columns[places.image]
        self._caption = None if places.caption is None else columns[places.caption]
        self._label = None if places.label is None else columns[places.label]
        kind = self._kind(
            features, self._image, "image_column", ("text", "picture", "bytes", "null")
        )
        self.embedded = kind in ("picture", "bytes")
        # The column with the name of the picture, once {bytes, path} became two columns.
        self._name = {"picture": f"{self._image}.path", "bytes": None}.get(kind, self._image)
        self._label_names: list[str] = []
        if self._caption is not None:
            self._kind(features, self._caption, "caption_column", ("text", "texts", "null"))
        if self._label is not None:
            self._kind(features, self._label, "label_column", ("text", "number", "null"))
            self._label_names = getattr(features[self._label], "names", None) or []

    def rows(self) -> Iterator[Row | Skip]:
        """Give the rows, numbered from 1; an embedded picture may have '' for a name.

        Raises:
            DataError: a damaged file, or no rows.
        """
        number = 0
        columns = [name for name in (self._name, self._caption, self._label) if name is not None]
        with self._one_line():
            if self.embedded:
                data = self.pictures().flatten()
            else:
                data = self._load(streaming=True, columns=list(dict.fromkeys(columns)))
            # Without a column of texts there is still one row for each picture.
            batches = data.select_columns(columns).iter(BATCH_ROWS) if columns else [{}] * len(data)
            for batch in batches:
                for place in range(len(batch[columns[0]]) if columns else 1):
                    number += 1
                    yield self._row(number, {name: batch[name][place] for name in columns})
        if not number:
            raise DataError(f"{self.path}: the table has columns and no rows")

    def pictures(self) -> Any:
        """Return a Dataset of what is read, memory-mapped; embedded pictures stay undecoded."""
        from datasets import Image

        columns = [name for name in (self._image, self._caption, self._label) if name is not None]
        with self._one_line():
            data = self._load(streaming=False, columns=list(dict.fromkeys(columns)))
            if isinstance(data.features[self._image], Image):
                data = data.cast_column(self._image, Image(decode=False))
        return data

    def picture(self, pictures: Any, row: int) -> bytes:
        """Return the bytes of the picture in a row (from 0); empty where there is none."""
        value = pictures[row][self._image]
        if isinstance(value, dict):
            value = value["bytes"]
        return bytes(value or b"")

    def _row(self, number: int, values: dict[str, Any]) -> Row | Skip:
        image = (values[self._name] or "").strip() if self._name else ""
        if not image and not self.embedded:
            return Skip(f"{self.path}: row {number}", "its picture has no name", kind="row")
        captions = values[self._caption] if self._caption is not None else None
        if captions is None or isinstance(captions, str):
            captions = [captions]
        label = values[self._label] if self._label is not None else None
        if self._label_names and label is not None:
            label = self._label_names[label] if label >= 0 else None
        return Row(
            number,
            image,
            tuple(text.strip() for text in captions if text is not None and text.strip()),
            "" if label is None else str(label).strip(),
        )

    def _kind(
        self, features: dict[str, Any], column: str, field: str, allowed: tuple[str, ...]
    ) -> str:
        kind = _kind_of(features[column])
        if kind not in allowed:
            raise DataError(
                f"{self.path}: column {shorten(column)} ({field}) holds {kind}, where only "
                f"{' or '.join(name for name in allowed if name != 'null')} can be read"
            )
        return kind

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

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """Turn what the library raises for a damaged file or an odd type into one line."""
        from datasets.exceptions import DatasetsError

        try:
            yield
        except (DatasetsError, ValueError, OSError, TypeError, NotImplementedError) as error:
            cause = error.__cause__ or error
            reason = shorten(" ".join(str(cause).split()), limit=160)
            raise DataError(f"{self.path}: the Parquet file cannot be read: {reason}") from error


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
            tail = file.seek(0, 2) >= 3 * len(MAGIC) and file.seek(-len(MAGIC), 2) and file.read()
    except OSError as error:
        raise DataError(f"{path}: the table cannot be read: {error.strerror}") from error
    if head != MAGIC or tail != MAGIC:
        raise DataError(
            f"{path}: this is no Parquet file, or one that is cut off (a whole one begins and ends "
            f"with {MAGIC.decode()}); write it again"
        )


def _kind_of(feature: Any) -> str:
    """Name the type of a column: text, texts, number, picture, bytes, null or what it is."""
    from datasets import ClassLabel, Image, LargeList, List, Value

    if isinstance(feature, Image) or (
        isinstance(feature, dict) and {"bytes", "path"} <= set(feature)
    ):
        return "picture"
    if isinstance(feature, ClassLabel):
        return "number"
    if isinstance(feature, List | LargeList) and _kind_of(feature.feature) == "text":
        return "texts"
    if not isinstance(feature, Value):
        return shorten(str(feature), limit=60)
    dtype = str(feature.dtype)
    if "string" in dtype:
        return "text"
    if "binary" in dtype:
        return "bytes"
    return "number" if dtype.lstrip("u").startswith("int") else dtype
