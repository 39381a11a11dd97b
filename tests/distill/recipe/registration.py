"""What the tests of sources and of teachers share: is each kind fully registered?"""

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from distill.recipe.base import Section, kind_of
from tests.house import parsed, source_files, within


def rows_of(base: type[Section]) -> list[type[Section]]:
    """Return the rows that the module of their base class defines, in its union or not."""

    def below(parent: type[Section]) -> Iterator[type[Section]]:
        for row in parent.__subclasses__():
            if row.__module__ == base.__module__ and kind_of(row) is not None:
                yield row
            yield from below(row)

    return list(below(base))


def not_in_union(
    defined: Iterable[type[Section]], *, listed: Iterable[type[Section]], union: str
) -> list[str]:
    """Return one line for each row that the union of its kinds leaves out."""
    listed = tuple(listed)
    return [
        f"{row.__module__}: {row.__name__} is not in the union {union}; list it there"
        for row in defined
        if row not in listed
    ]


def functions_in(package: str, *, name: str, returns: str = ".*") -> set[str]:
    """Return the functions of a package, as ``module:function``.

    Args:
        package: A package of ours; its files are read, not imported.
        name: A pattern for the whole name of a function.
        returns: A pattern for the whole annotation of what it returns.
    """
    return {
        f"{module}:{node.name}"
        for module, path in source_files().items()
        if within(module, package)
        for node in parsed(path).body
        if isinstance(node, ast.FunctionDef) and re.fullmatch(name, node.name)
        if re.fullmatch(returns, ast.unparse(node.returns).strip("'\"") if node.returns else "")
    }


def without_row(functions: Iterable[str], *, named: Iterable[str], field: str) -> list[str]:
    """Return one line for each function that no row names in a field such as ``opener``."""
    return [
        f'{function}: no row names this function; add a row with {field} = "{function}"'
        for function in sorted({*functions} - {*named})
    ]


def unknown_kinds(kinds: Iterable[str], *, known: Iterable[str], page: str) -> list[str]:
    """Return one line for each kind that a page describes and no row has."""
    return [
        f"{page}: describes the kind {kind}, but no row has it"
        for kind in sorted({*kinds} - {*known})
    ]


def other_defaults(row: type[Section], function: Callable[..., Any], name: str) -> Iterator[str]:
    """Yield one line for each default of a function that its row contradicts."""
    for parameter in inspect.signature(function).parameters.values():
        field = row.model_fields.get(parameter.name)
        if field is None or field.is_required() or parameter.default is parameter.empty:
            continue
        if field.get_default() != parameter.default:
            yield (
                f"{row.__name__}: {parameter.name} is {field.get_default()!r} in the row, but "
                f"{parameter.default!r} in {name}"
            )
