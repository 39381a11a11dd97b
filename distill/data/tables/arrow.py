"""Columns of Arrow tables, as the Hugging Face datasets library shows them, read as rows."""

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
    """The columns to read of a table, found and of types that can be read.

    Pictures are names of files, or embedded: binary, or the ``{bytes, path}`` that datasets
    writes. A caption is a string or a list of them, a label a string or a whole number.
    """

    def __init__(self, features: Mapping[str, Any], names: ColumnNames, *, table: str) -> None:
        """Look at names and types alone.

        Raises:
            DataError: a column is missing or of another type.
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
        # The column with the name of the picture, once {bytes, path} became two columns.
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
        """The columns that rows are made of, each once, where ``{bytes, path}`` is flattened."""
        return self._present(self._name)

    @property
    def all(self) -> list[str]:
        """The columns that are read, that of the pictures among them, each once."""
        return self._present(self.image)

    def rows(self, data: Any) -> Iterator[Row | Skip]:
        """Give the rows of a dataset, numbered from 1; an embedded picture may have '' for a name.

        Raises:
            DataError: there are no rows.
        """
        number = 0
        texts = self.texts
        # Without a column of texts there is still one row for each picture.
        batches = data.select_columns(texts).iter(_BATCH_ROWS) if texts else [{}] * len(data)
        for batch in batches:
            for place in range(len(batch[texts[0]]) if texts else 1):
                number += 1
                yield self._row(number, {name: batch[name][place] for name in texts})
        if not number:
            raise DataError(f"{self._table}: the table has columns and no rows")

    def undecoded(self, data: Any) -> Any:
        """Return a dataset of what is read, its pictures left as they are."""
        from datasets import Image

        # A saved copy, or one put together, may show some columns alone, or as tensors.
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
                f"{self._table}: column {shorten(column)} ({field}) holds {kind}, where only "
                f"{' or '.join(name for name in allowed if name != 'null')} can be read"
            )
        return kind


class Embedded(Protocol):
    """A table with pictures inside."""

    def rows(self) -> Iterator[Row | Skip]:
        """Give the rows, numbered from 1; a picture may have '' for a name."""
        ...

    def pictures(self) -> Any:
        """Return a dataset of the rows, memory-mapped, with the pictures undecoded."""
        ...

    @property
    def image(self) -> str:
        """The column of the pictures."""
        ...


class EmbeddedSource:
    """The pictures inside of a table, one for each row."""

    def __init__(self, name: str, table: Embedded) -> None:
        """Read all rows, and no picture."""
        self.name = name
        self._image = table.image
        self._columns = SampleColumns()
        seen: set[str] = set()
        for row in table.rows():
            # A row is only ever skipped for the name of its picture, which is not needed here.
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
    """Turn what the library raises for a damaged file or an odd type into one line."""
    from datasets.exceptions import DatasetsError

    try:
        with no_log():
            yield
    except (DatasetsError, ValueError, OSError, TypeError, NotImplementedError) as error:
        raise DataError(f"{what} cannot be read: {reason(error)}") from error


@contextmanager
def no_log() -> Iterator[None]:
    """Keep the library from printing a line of its own before it raises an error."""
    from datasets import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def reason(error: BaseException) -> str:
    """Return what the library says, or what it was caused by, in one line."""
    cause = error.__cause__ or error
    return shorten(" ".join(str(cause).split()) or type(cause).__name__, limit=160)


def _picture(value: Any) -> bytes | Path:
    if isinstance(value, dict):
        # The library's own folders of pictures name the files, from the root on.
        path = Path(value["path"] or "")
        if value["bytes"] is None and path.is_absolute():
            return path
        value = value["bytes"]
    return bytes(value or b"")


def _plain(value: Any) -> str:
    return "" if value is None else str(value).strip()


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
