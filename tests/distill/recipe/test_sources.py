"""Every kind of source is fully registered: its row, its opener and its documentation."""

import inspect
import re
from collections.abc import Iterator, Set
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import yaml

from distill.recipe.base import Section, Text, by_kind, kind_of, kinds_of
from distill.recipe.sources import SOURCES, FolderSection, ImagesSection, SourceRow
from tests.distill.recipe.registration import (
    functions_in,
    not_in_union,
    other_defaults,
    rows_of,
    unknown_kinds,
    without_row,
)
from tests.house import ROOT, used_names

DOCS = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
TESTS = ROOT / "tests" / "distill" / "data"
OPENERS = {
    "distill.data.folder.open_folder",
    "distill.data.folder.open_new",
    "distill.data.images.open_images",
}
# It opens a source of any kind.
NO_OPENER = "distill.data.open:open_source"


def what_is_missing(row: type[Section], *, docs: str, tests: Set[str]) -> Iterator[str]:
    """Yield one line for each thing that the registration of a kind of source lacks.

    Args:
        row: The row of the kind.
        docs: The text of docs/data.md.
        tests: The names that the tests of sources use.
    """
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
    if row.opener.replace(":", ".") not in tests:
        yield f"tests/distill/data: no test calls {row.opener}"
    for function in filter(None, (row.opener, row.preview)):
        yield from what_does_not_fit(row, function)
    if (an_example(row).rendered(Path("out")) is None) != (row.preview is None):
        yield f"{who}: it needs both a preview and a folder that it is rendered into, or neither"


def an_example(row: type[SourceRow]) -> SourceRow:
    """Return a section of a kind with nothing but its required fields."""
    required = {name: "x" for name, field in row.model_fields.items() if field.is_required()}
    return row.model_construct(None, **required)


def what_does_not_fit(row: type[SourceRow], function: str) -> Iterator[str]:
    """Yield one line for each parameter and field that do not match."""
    who = row.__name__
    module, _, name = function.partition(":")
    try:
        opener = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        yield f"{who}: opener {function!r} names no function; {error}"
        return
    arguments = an_example(row).arguments(output=Path("out"), index_folder=Path("indices"))
    fields = {*arguments}
    parameters = {*inspect.signature(opener).parameters}
    for field in sorted(fields - parameters):
        yield f"{who}: {function} takes no {field}, which is a field of the row"
    for parameter in sorted(parameters - fields):
        yield f"{who}: {function} takes {parameter}, but the row has no such field"
    yield from other_defaults(row, opener, function)


def described_kinds(docs: str) -> Iterator[str]:
    """Yield the kinds of sources in the recipes of a page, and in its table of paths."""

    def kinds_in(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from [value["kind"]] if "kind" in value else []
            value = list(value.values())
        for entry in value if isinstance(value, list) else []:
            yield from kinds_in(entry)

    for snippet in re.findall(r"```yaml\n(.*?)```", docs, re.DOTALL):
        recipe = yaml.safe_load(snippet)
        yield from kinds_in([recipe.get("data"), recipe.get("evaluate")])
    for table in re.findall(r"^\| PATH \| kind \|\n((?:\|.*\n)+)", docs, re.MULTILINE):
        yield from re.findall(r"^\|.*\| `(\w+)`[^|]*\|$", table, re.MULTILINE)


@pytest.mark.parametrize("row", SOURCES, ids=kind_of)
def test_nothing_of_a_kind_is_missing(row: type[Section]) -> None:
    tests = {name for path in TESTS.rglob("test_*.py") for name in used_names(path)}
    found = list(what_is_missing(row, docs=DOCS, tests=tests))
    assert not found, "\n".join(found)


def test_every_row_is_in_the_union() -> None:
    found = not_in_union(rows_of(SourceRow), listed=SOURCES, union="SourceSection")
    assert not found, "\n".join(found)
    assert not_in_union([FolderSection, ImagesSection], listed=[FolderSection], union="U") == [
        "distill.recipe.sources: ImagesSection is not in the union U; list it there"
    ]


def test_every_opener_has_a_row() -> None:
    openers = functions_in("distill.data", name=r"open_\w+", returns=r"\w*Source") - {NO_OPENER}
    named = [row.opener for row in rows_of(SourceRow) if issubclass(row, SourceRow)]
    found = without_row(openers, named=named, field="opener")
    assert not found, "\n".join(found)
    assert without_row(["distill.data.made_up:open_made_up"], named=named, field="opener") == [
        (
            "distill.data.made_up:open_made_up: no row names this function; "
            'add a row with opener = "distill.data.made_up:open_made_up"'
        )
    ]


def test_every_kind_in_the_documentation_has_a_row() -> None:
    known = kinds_of(SOURCES)
    missing = unknown_kinds(described_kinds(DOCS), known=known, page="docs/data.md")
    assert not missing, "\n".join(missing)
    recipe = "```yaml\ndata:\n  train: [{kind: hub}, {kind: made_up}]\nstudent: {kind: hf}\n```\n"
    table = "| PATH | kind |\n|---|---|\n| `a`, `b` | `other_made_up` |\n| c | `images`: pure |\n"
    found = list(described_kinds(recipe + table))
    assert found == ["hub", "made_up", "other_made_up", "images"]
    assert unknown_kinds(found, known=known, page="docs/data.md") == [
        "docs/data.md: describes the kind made_up, but no row has it",
        "docs/data.md: describes the kind other_made_up, but no row has it",
    ]


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

    class NoPreview(SourceRow):
        opener: ClassVar[str] = "distill.data.images:open_images"
        preview: ClassVar[str | None] = "distill.data.images:open_images"
        kind: Literal["new"] = "new"
        path: Text
        weight: float = 1.0

    class OtherDefault(FolderSection):
        templates: tuple[str, ...] = ("a drawing of a {}.",)

    def lines(
        row: type[Section],
        *,
        docs: str = "```yaml\nkind: new, kind: folder\n```",
        tests: Set[str] = OPENERS,
    ) -> list[str]:
        return list(what_is_missing(row, docs=docs, tests=tests))

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
    assert lines(NoPreview) == [
        "NoPreview: it needs both a preview and a folder that it is rendered into, or neither"
    ]
    assert lines(OtherDefault) == [
        (
            "OtherDefault: templates is ('a drawing of a {}.',) in the row, but "
            "('a photo of a {}.',) in distill.data.folder:open_folder"
        )
    ]
    assert lines(FolderSection, tests=set()) == [
        "tests/distill/data: no test calls distill.data.folder:open_folder"
    ]
    assert lines(FolderSection) == []


def test_a_duplicate_kind_is_named() -> None:
    class SameKind(SourceRow):
        kind: Literal["folder"] = "folder"

    with pytest.raises(TypeError, match=r"^SameKind: FolderSection has the kind folder too$"):
        by_kind(FolderSection, SameKind)
