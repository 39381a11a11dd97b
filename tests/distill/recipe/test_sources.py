"""Every kind of source is fully registered: its row, its opener and its documentation."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from distill.recipe.base import Section, Text, by_kind, kind_of
from distill.recipe.sources import SOURCES, FolderSection, ScenesSection, ShardsSection, SourceRow

DOCS = Path(__file__).parents[3] / "docs" / "data.md"
# An argument that the toolkit adds to those of one kind.
ADDED = {ShardsSection: {"index_folder"}}


def what_is_missing(row: type[Section], *, docs: str) -> Iterator[str]:
    """Yield one line for each thing that the registration of a kind of source lacks."""
    kind, who = kind_of(row), row.__name__
    snippets = "".join(re.findall(r"```yaml\n(.*?)```", docs, re.DOTALL))
    if not re.search(rf"\bkind: {kind}\b", snippets):
        yield f"docs/data.md: no recipe with kind: {kind}"
    for field in ("path", "weight"):
        if field not in row.model_fields:
            yield f"{who}: no field {field}"
    if not issubclass(row, SourceRow):
        yield f"{who}: it is not a SourceRow"
        return
    if not hasattr(row, "opener"):
        yield f'{who}: no opener; name its function, as in opener = "distill.data.new:open_new"'
        return
    for function in filter(None, (row.opener, row.preview)):
        yield from what_does_not_fit(row, function)


def what_does_not_fit(row: type[SourceRow], function: str) -> Iterator[str]:
    """Yield one line for each parameter and field that do not match."""
    who = row.__name__
    module, _, name = function.partition(":")
    try:
        opener = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        yield f"{who}: opener {function!r} names no function; {error}"
        return
    fields = {*row.opened_fields(), *ADDED.get(row, ())}
    parameters = {*inspect.signature(opener).parameters}
    for field in sorted(fields - parameters):
        yield f"{who}: {function} takes no {field}, which is a field of the row"
    for parameter in sorted(parameters - fields):
        yield f"{who}: {function} takes {parameter}, but the row has no such field"


@pytest.mark.parametrize("row", SOURCES, ids=kind_of)
def test_nothing_of_a_kind_is_missing(row: type[Section]) -> None:
    assert list(what_is_missing(row, docs=DOCS.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("row", SOURCES, ids=kind_of)
def test_the_arguments_of_a_row_are_those_of_its_opener(row: type[SourceRow]) -> None:
    section = row() if row is ScenesSection else row(path="x")
    arguments = section.arguments(output=Path("out"), index_folder=Path("indices"))
    module, _, name = row.opener.partition(":")
    inspect.signature(getattr(import_module(module), name)).bind(**arguments)
    assert (section.rendered(Path("out")) is None) == (row.preview is None)


def test_a_half_done_registration_says_what_is_missing() -> None:
    class NoOpener(SourceRow):
        kind: Literal["new"] = "new"
        path: Text

    class NoFunction(FolderSection):
        opener: ClassVar[str] = "distill.data.folder:open_new"

    class OtherFields(SourceRow):
        opener: ClassVar[str] = "distill.data.images:open_images"
        kind: Literal["new"] = "new"
        weight: float = 1.0
        depth: int = 1

    class NoRow(Section):
        kind: Literal["new"] = "new"
        path: Text
        weight: float = 1.0

    def lines(row: type[Section], docs: str = "```yaml\nkind: new, kind: folder\n```") -> list[str]:
        return list(what_is_missing(row, docs=docs))

    assert lines(NoOpener, docs="kind: new in no recipe") == [
        "docs/data.md: no recipe with kind: new",
        "NoOpener: no field weight",
        'NoOpener: no opener; name its function, as in opener = "distill.data.new:open_new"',
    ]
    (told,) = lines(NoFunction)
    assert told.startswith("NoFunction: opener 'distill.data.folder:open_new' names no function; ")
    assert lines(OtherFields) == [
        "OtherFields: no field path",
        "OtherFields: distill.data.images:open_images takes no depth, which is a field of the row",
        "OtherFields: distill.data.images:open_images takes path, but the row has no such field",
    ]
    assert lines(NoRow) == ["NoRow: it is not a SourceRow"]
    assert lines(FolderSection) == []


def test_a_duplicate_kind_is_named() -> None:
    class SameKind(SourceRow):
        kind: Literal["folder"] = "folder"

    with pytest.raises(TypeError, match=r"^SameKind: FolderSection has the kind folder too$"):
        by_kind(FolderSection, SameKind)
