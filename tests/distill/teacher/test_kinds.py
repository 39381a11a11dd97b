"""Every kind of teacher has a row, a loader, documentation and tests."""

import inspect
import re
from collections.abc import Iterator, Set
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from distill.recipe.base import Section, Text, by_kind, kind_of, kinds_of
from distill.recipe.teachers import TEACHERS, HfTeacherSection, OpenAiTeacherSection, TeacherRow
from tests.distill.recipe.registration import (
    functions_in,
    not_in_union,
    other_defaults,
    rows_of,
    unknown_kinds,
    without_row,
)
from tests.house import ROOT, used_names

DOCS = (ROOT / "docs" / "teachers.md").read_text(encoding="utf-8")
TESTS = Path(__file__).parent
LOADERS = {"distill.teacher.hf.load_hf_teacher", "distill.teacher.hf.load_new"}
# Fields that loaders do not take, and arguments that are not fields.
NOT_FOR_LOADERS, ADDED = {"kind", "weight"}, {"device"}


def what_is_missing(row: type[Section], *, docs: str, tests: Set[str]) -> Iterator[str]:
    """Yield one line for each thing that is missing for a kind of teacher.

    Args:
        row: The row of the kind.
        docs: The text of docs/teachers.md.
        tests: The names that the tests of teachers use.
    """
    kind, who = kind_of(row), row.__name__
    if not re.search(rf"^## `{kind}`", docs, re.MULTILINE):
        yield f"docs/teachers.md: no section headed ## `{kind}`"
    if not re.search(rf"^\| `{kind}` \|", docs, re.MULTILINE):
        yield f"docs/teachers.md: no row | `{kind}` | in the table of kinds"
    for field in ("model", "weight", "dtype"):
        if field not in row.model_fields:
            yield f"{who}: no field {field}"
    if not issubclass(row, TeacherRow):
        yield f"{who}: it is not a TeacherRow"
        return
    if not hasattr(row, "loader"):
        yield f'{who}: no loader; name its function, as in loader = "distill.teacher.hf:load"'
        return
    module, _, name = row.loader.partition(":")
    if f"{module}.{name}" not in tests:
        yield f"tests/distill/teacher: no test calls {row.loader}"
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        yield f"{who}: loader {row.loader!r} names no function; {error}"
        return
    fields = {*row.model_fields} - NOT_FOR_LOADERS
    parameters = {*inspect.signature(function).parameters}
    for field in sorted(fields - parameters):
        yield f"{who}: {row.loader} takes no {field}, which is a field of the row"
    for parameter in sorted(parameters - fields - ADDED):
        yield f"{who}: {row.loader} takes {parameter}, but the row has no such field"
    for parameter in sorted(ADDED - parameters):
        yield f"{who}: {row.loader} takes no {parameter}"
    yield from other_defaults(row, function, row.loader)


def described_kinds(docs: str) -> list[str]:
    """Return the kinds that head a section, or a row of the table of kinds."""
    return re.findall(r"^(?:## `|\| `)(\w+)`(?::| \||$)", docs, re.MULTILINE)


@pytest.mark.parametrize("row", TEACHERS, ids=kind_of)
def test_nothing_of_a_kind_is_missing(row: type[Section]) -> None:
    files = (path for path in TESTS.glob("test_*.py") if path != Path(__file__))
    tests = {name for path in files for name in used_names(path)}
    found = list(what_is_missing(row, docs=DOCS, tests=tests))
    assert not found, "\n".join(found)


def test_every_row_is_in_the_union() -> None:
    rows = [HfTeacherSection, OpenAiTeacherSection]
    found = not_in_union(rows_of(TeacherRow), listed=TEACHERS, union="TeacherSection")
    assert not found, "\n".join(found)
    assert not_in_union(rows, listed=rows[:1], union="U") == [
        "distill.recipe.teachers: OpenAiTeacherSection is not in the union U; list it there"
    ]


def test_every_loader_has_a_row() -> None:
    loaders = functions_in("distill.teacher", name=r"load_\w+_teacher")
    named = [row.loader for row in rows_of(TeacherRow) if issubclass(row, TeacherRow)]
    found = without_row(loaders, named=named, field="loader")
    assert not found, "\n".join(found)
    assert without_row(loaders, named=named[1:], field="loader") == [
        (
            "distill.teacher.hf:load_hf_teacher: no row names this function; "
            'add a row with loader = "distill.teacher.hf:load_hf_teacher"'
        )
    ]


def test_every_kind_in_the_documentation_has_a_row() -> None:
    known = kinds_of(TEACHERS)
    missing = unknown_kinds(described_kinds(DOCS), known=known, page="docs/teachers.md")
    assert not missing, "\n".join(missing)
    page = "## `hf`: x\n## Weights\n## `made_up`: y\n| `other_made_up` | z |\n| a list |\n"
    found = described_kinds(page)
    assert unknown_kinds(found, known=known, page="docs/teachers.md") == [
        "docs/teachers.md: describes the kind made_up, but no row has it",
        "docs/teachers.md: describes the kind other_made_up, but no row has it",
    ]


def test_what_is_missing_is_named() -> None:
    class NoRow(Section):
        kind: Literal["hf"] = "hf"
        model: Text
        weight: float = 1.0
        dtype: Literal["float32"] = "float32"

    class OtherDefault(HfTeacherSection):
        dtype: Literal["float32", "float16", "bfloat16"] = "float16"

    class NoLoader(TeacherRow):
        kind: Literal["new"] = "new"
        model: Text

    class NoFunction(HfTeacherSection):
        loader: ClassVar[str] = "distill.teacher.hf:load_new"

    class OtherFields(TeacherRow):
        loader: ClassVar[str] = "distill.teacher.hf:load_hf_teacher"
        kind: Literal["new"] = "new"
        model: Text
        weight: float = 1.0
        depth: int = 1

    def lines(row: type[Section], *, tests: Set[str] = LOADERS) -> list[str]:
        return list(what_is_missing(row, docs="## `hf`\n| `hf` |\n", tests=tests))

    assert lines(NoLoader) == [
        "docs/teachers.md: no section headed ## `new`",
        "docs/teachers.md: no row | `new` | in the table of kinds",
        "NoLoader: no field weight",
        "NoLoader: no field dtype",
        'NoLoader: no loader; name its function, as in loader = "distill.teacher.hf:load"',
    ]
    (told,) = lines(NoFunction)
    assert told.startswith("NoFunction: loader 'distill.teacher.hf:load_new' names no function; ")
    assert lines(HfTeacherSection) == []
    assert lines(NoRow) == ["NoRow: it is not a TeacherRow"]
    assert lines(OtherDefault) == [
        (
            "OtherDefault: dtype is 'float16' in the row, but 'float32' in "
            "distill.teacher.hf:load_hf_teacher"
        )
    ]
    assert lines(HfTeacherSection, tests=set()) == [
        "tests/distill/teacher: no test calls distill.teacher.hf:load_hf_teacher"
    ]
    loader = "OtherFields: distill.teacher.hf:load_hf_teacher takes"
    assert lines(OtherFields)[-2:] == [
        f"{loader} no depth, which is a field of the row",
        f"{loader} dtype, but the row has no such field",
    ]


def test_a_row_without_its_own_kind_is_named() -> None:
    class NoKind(Section):
        model: Text

    class SameKind(Section):
        kind: Literal["hf"] = "hf"

    with pytest.raises(TypeError, match=r"^NoKind: .* needs a field such as `kind: Literal"):
        by_kind(HfTeacherSection, NoKind)
    with pytest.raises(TypeError, match=r"^SameKind: HfTeacherSection has the kind hf too$"):
        by_kind(HfTeacherSection, SameKind)
