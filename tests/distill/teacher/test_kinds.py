"""Every kind of teacher has a row, a loader, documentation and tests."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from distill.recipe.base import Section, Text, by_kind, kind_of
from distill.recipe.teachers import TEACHERS, HfTeacherSection

DOCS = Path(__file__).parents[3] / "docs" / "teachers.md"
TESTS = Path(__file__).parent
# Fields that loaders do not take, and arguments that are not fields.
NOT_FOR_LOADERS, ADDED = {"kind", "weight"}, {"device"}


def what_is_missing(row: type[Section], *, docs: str, tests: str) -> Iterator[str]:
    """Yield one line for each thing that is missing for a kind of teacher."""
    kind, who = kind_of(row), row.__name__
    if not re.search(rf"^## `{kind}`", docs, re.MULTILINE):
        yield f"docs/teachers.md: no section headed ## `{kind}`"
    if not re.search(rf"^\| `{kind}` \|", docs, re.MULTILINE):
        yield f"docs/teachers.md: no row | `{kind}` | in the table of kinds"
    for field in ("model", "weight", "dtype"):
        if field not in row.model_fields:
            yield f"{who}: no field {field}"
    if not hasattr(row, "loader"):
        yield f'{who}: no loader; name its function, as in loader = "distill.teacher.hf:load"'
        return
    module, _, name = row.loader.partition(":")
    if name not in tests:
        yield f"tests/distill/teacher: no test calls {name}"
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


def all_tests() -> str:
    files = (path for path in TESTS.glob("test_*.py") if path != Path(__file__))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@pytest.mark.parametrize("row", TEACHERS, ids=kind_of)
def test_nothing_of_a_kind_is_missing(row: type[Section]) -> None:
    found = what_is_missing(row, docs=DOCS.read_text(encoding="utf-8"), tests=all_tests())
    assert list(found) == []


def test_what_is_missing_is_named() -> None:
    class NoLoader(Section):
        kind: Literal["new"] = "new"
        model: Text

    class NoFunction(HfTeacherSection):
        loader: ClassVar[str] = "distill.teacher.hf:load_new"

    class OtherFields(Section):
        loader: ClassVar[str] = "distill.teacher.hf:load_hf_teacher"
        kind: Literal["new"] = "new"
        model: Text
        weight: float = 1.0
        depth: int = 1

    def lines(row: Any, *, tests: str = "load_hf_teacher load_new") -> list[str]:
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
    assert lines(HfTeacherSection, tests="") == [
        "tests/distill/teacher: no test calls load_hf_teacher"
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
