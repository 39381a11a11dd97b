"""Rows and embedded pictures of Arrow tables, read by the Hugging Face datasets library."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from distill.basis.words import shorten
from distill.data.sample import Sample, Skip
from distill.data.tables._columns import SampleColumns, fill_row
from distill.data.tables.rows import ColumnNames, Row, find_columns
from export.runtime.errors import DataError

_BATCH_ROWS = 4096


class ArrowColumns:
    """The columns to read from a table; they exist and have readable types.

    Pictures are file names, or embedded: binary, or the ``{bytes, path}`` that datasets writes. A
    caption is a string or a list of strings; a label is a string or an integer.
    """

    def __init__(self, features: Mapping[str, Any], names: ColumnNames, *, table: str) -> None:
        """Check names and types only.

        Raises:
            DataError: A column is missing or has the wrong type.
        """
        self._table = table
        columns = list(features)
        places = find_columns(columns, names, table=table)
        self.image = columns[places.image]
        self._caption = None if places.caption is None else columns[places.caption]
        self._label = None if places.label is None else columns[places.label]
        self._id = None if places.id is None else columns[places.id]
        kind = self._kind(
            features, self.image, "image_column", ("text", "picture", "bytes", "null")
        )
        self.embedded = kind in ("picture", "bytes")
        # The column with the name of the picture, after {bytes, path} is split into two columns.
        self._name = {"picture": f"{self.image}.path", "bytes": None}.get(kind, self.image)
        self._label_names: list[str] = []
        if self._caption is not None:
            self._kind(features, self._caption, "caption_column", ("text", "texts", "null"))
        if self._label is not None:
            self._kind(features, self._label, "label_column", ("text", "number", "null"))
            self._label_names = getattr(features[self._label], "names", None) or []
        if self._id is not None:
            self._kind(features, self._id, "id_column", ("text", "number", "null"))

    @property
    def texts(self) -> list[str]:
        """The columns that make up rows, each once, after ``{bytes, path}`` is flattened."""
        return self._present(self._name)

    @property
    def all(self) -> list[str]:
        """The columns that are read, including the pictures, each once."""
        return self._present(self.image)

    def rows(self, data: Any) -> Iterator[Row | Skip]:
        """Yield the rows of a dataset, numbered from 1; the name of an embedded picture may be ''.

        Raises:
            DataError: There are no rows.
        """
        number = 0
        texts = self.texts
        # Without any text column there is still one row for each picture.
        batches = data.select_columns(texts).iter(_BATCH_ROWS) if texts else [{}] * len(data)
        for batch in batches:
            for place in range(len(batch[texts[0]]) if texts else 1):
                number += 1
                yield self._row(number, {name: batch[name][place] for name in texts})
        if not number:
            raise DataError(f"{self._table}: the table has columns but no rows")

    def undecoded(self, data: Any) -> Any:
        """Return a dataset of the columns that are read, with undecoded pictures."""
        from datasets import Image

        # A saved or concatenated dataset may be formatted: some columns only, or as tensors.
        data = data.with_format(None).select_columns(self.all)
        if isinstance(data.features[self.image], Image):
            data = data.cast_column(self.image, Image(decode=False))
        return data

    def _present(self, first: str | None) -> list[str]:
        columns = (first, self._caption, self._label, self._id)
        return list(dict.fromkeys(name for name in columns if name is not None))

    def _row(self, number: int, values: dict[str, Any]) -> Row | Skip:
        image = (values[self._name] or "").strip() if self._name else ""
        if not image and not self.embedded:
            return Skip(f"{self._table}: row {number}", "its picture has no name", kind="row")
        captions = values[self._caption] if self._caption is not None else None
        if captions is None or isinstance(captions, str):
            captions = [captions]
        label = values[self._label] if self._label is not None else None
        if self._label_names and label is not None:
            known = 0 <= label < len(self._label_names)
            label = self._label_names[label] if known else None
        return Row(
            number,
            image,
            tuple(text.strip() for text in captions if text is not None and text.strip()),
            _plain(label),
            _plain(values[self._id] if self._id is not None else None),
        )

    def _kind(
        self, features: Mapping[str, Any], column: str, field: str, allowed: tuple[str, ...]
    ) -> str:
        kind = _kind_of(features[column])
        if kind not in allowed:
            raise DataError(
                f"{self._table}: column {shorten(column)} ({field}) has the type {kind}, must be "
                f"{' or '.join(name for name in allowed if name != 'null')}"
            )
        return kind


class _Embedded(Protocol):
    """A table that contains its pictures."""

    def rows(self) -> Iterator[Row | Skip]:
        """Yield the rows, numbered from 1; the name of a picture may be ''."""
        ...

    def pictures(self) -> Any:
        """Return a memory-mapped dataset of the rows, with undecoded pictures."""
        ...

    @property
    def image(self) -> str:
        """The name of the picture column."""
        ...


class EmbeddedSource:
    """The pictures inside a table, one for each row."""

    def __init__(self, name: str, table: _Embedded) -> None:
        """Read all rows but no picture."""
        self.name = name
        self._image = table.image
        self._columns = SampleColumns()
        seen: set[str] = set()
        for row in table.rows():
            # A row is skipped only if its picture has no name, which embedded pictures do not need.
            assert isinstance(row, Row)
            key = row.image or f"row-{row.number}"
            key = f"{key}#row-{row.number}" if key in seen else key
            seen.add(key)
            fill_row(self._columns, self._columns.add(key), row)
        self._columns.freeze()
        self._pictures: Any = table.pictures()
        self.skipped: tuple[Skip, ...] = ()
        self.rows = len(self)

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, index: int) -> Sample:
        number = range(len(self))[index]
        return Sample(
            key=self._columns.key(number),
            image=_picture(self._pictures[number][self._image]),
            captions=self._columns.captions(number),
            label=self._columns.label(number),
            group=self._columns.group(number),
        )


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn the library's exceptions for damaged files and odd types into one line."""
    from datasets.exceptions import DatasetsError

    try:
        with no_log():
            yield
    except (DatasetsError, ValueError, OSError, TypeError, NotImplementedError) as error:
        raise DataError(f"{what} cannot be read: {reason(error)}") from error


@contextmanager
def no_log() -> Iterator[None]:
    """Keep the library from logging an error before it raises it."""
    from datasets import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def reason(error: BaseException) -> str:
    """Return an exception's cause, or else its own message, in one line."""
    cause = error.__cause__ or error
    return shorten(" ".join(str(cause).split()) or type(cause).__name__, limit=160)


def _picture(value: Any) -> bytes | Path:
    if isinstance(value, dict):
        # The library's image folders store absolute paths of files.
        path = Path(value["path"] or "")
        if value["bytes"] is None and path.is_absolute():
            return path
        value = value["bytes"]
    return bytes(value or b"")


def _plain(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _kind_of(feature: Any) -> str:
    """Return the type of a column: text, texts, number, picture, bytes, null or another name."""
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
