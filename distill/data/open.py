"""Opening sources: each kind names the function that opens it."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

from distill.data.sample import Source
from distill.data.scenes import TABLE_FILE


class _Openable(Protocol):
    """What a recipe says about one source."""

    opener: ClassVar[str]
    """The function that opens it, as ``module:function``."""
    preview: ClassVar[str | None]
    """The function that draws unrendered pictures in memory; None for pictures that exist."""

    def arguments(self, *, output: Path, index_folder: Path | None) -> Mapping[str, Any]:
        """Return the arguments of the opener and the preview, by name."""
        ...

    def rendered(self, output: Path, /) -> Path | None:
        """Return the folder that its pictures are rendered into; None for pictures that exist."""
        ...


def open_source(row: _Openable, *, output: Path, index_folder: Path | None = None) -> Source:
    """Open a source, rendering its pictures if it is procedural.

    Args:
        row: What the recipe says about the source.
        output: The run folder, for pictures that are rendered and have no path of their own.
        index_folder: A folder for indices of shards that cannot be written next to the tars.

    Raises:
        DataError: The data cannot be used.
    """
    return _call(row.opener, row.arguments(output=output, index_folder=index_folder))


def preview_source(row: _Openable, *, output: Path, index_folder: Path | None = None) -> Source:
    """Open a source, drawing in memory the pictures that are not rendered yet.

    Raises:
        DataError: The data cannot be used.
    """
    missing = unrendered(row, output=output) is not None
    opener = row.preview if missing and row.preview is not None else row.opener
    return _call(opener, row.arguments(output=output, index_folder=index_folder))


def unrendered(row: _Openable, *, output: Path) -> Path | None:
    """Return the folder that a source has yet to be rendered into; None if its pictures exist."""
    folder = row.rendered(output)
    return None if folder is None or (folder / TABLE_FILE).exists() else folder


def _call(function: str, arguments: Mapping[str, Any]) -> Source:
    module, _, name = function.partition(":")
    opener: Callable[..., Source] = getattr(import_module(module), name)
    return opener(**arguments)
