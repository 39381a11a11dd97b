"""Mistakes in a recipe: one line each, in the terms of the recipe."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from distill.recipe.base import Section, kind_of
from distill.recipe.config import RunConfig
from distill.recipe.student import DEFAULT_STUDENT_KIND
from distill.recipe.teachers import DEFAULT_TEACHER_KIND
from distill.recipe.text import inline

_Location = tuple[int | str, ...]

_LIMITS = {
    "greater_than_equal": ("ge", "≥"),
    "greater_than": ("gt", ">"),
    "less_than_equal": ("le", "≤"),
    "less_than": ("lt", "<"),
}
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_too_short": "a text of at least one character",
    "string_pattern_mismatch": "a text with {} where the name of the class goes",
    "tuple_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "too_short": "a list of at least one entry",
    "too_long": "a list of fewer entries",
}
_LONGEST_FOUND = 60
# The order matters: "hf", the default of teachers, is also a kind of student.
_DEFAULT_KINDS = (DEFAULT_STUDENT_KIND, DEFAULT_TEACHER_KIND)


def error_lines(
    error: ValidationError, values: Mapping[str, Any], *, where: str, overridden: Sequence[str]
) -> list[str]:
    """Return one line for each mistake: its file and path, what was found, and what is allowed.

    Args:
        error: What pydantic found.
        values: The recipe as it was read, overrides applied.
        where: The recipe's file.
        overridden: The paths that ``--set`` gave; mistakes there are blamed on ``--set``.
    """
    lines = []
    for line in error.errors(include_url=False):
        location: _Location = tuple(line["loc"])
        if line["type"] == "too_short" and line["input"]:
            continue  # Each of its entries is wrong and has its own line.
        path = " ".join(".".join(map(str, location)).split())
        place = f"--set {path}" if _touches(path, overridden) else f"{where}: {path}"
        lines.append(f"{place}: {_sentence(line, location, values)}")
    return lines


def models_at(location: _Location, values: Any) -> list[type[Section]]:
    """Return the models that a map at a place in a recipe may have.

    A known ``kind`` leaves one model; an unknown kind leaves all.
    """
    models: list[type[Section]] = [RunConfig]
    value = values
    for part in location:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
        if isinstance(part, str):
            fields = [m.model_fields[part] for m in models if part in m.model_fields]
            models = [model for field in fields for model in _sections_in(field.annotation)]
        if isinstance(value, Mapping):
            kinds = [value["kind"]] if "kind" in value else _DEFAULT_KINDS
            chosen = ([model for model in models if kind_of(model) == kind] for kind in kinds)
            models = next(filter(None, chosen), models)
    return list(dict.fromkeys(models))


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]


def _touches(path: str, overridden: Sequence[str]) -> bool:
    return any(
        f"{path}.".startswith(f"{given}.") or f"{given}.".startswith(f"{path}.")
        for given in overridden
    )


def _sentence(line: Any, location: _Location, values: Mapping[str, Any]) -> str:
    kind, found = line["type"], line["input"]
    context = line.get("ctx", {})
    match kind:
        case "across":
            return str(context["text"])
        case "extra_forbidden":
            return _unknown_key(location, values)
        case "missing":
            return _missing(location, values)
        case "literal_error":
            return f"{_found(found)}, must be {_choices(context['expected'], found)}"
        case "value_error":
            return f"{_found(found)}, {context['error']}"
    if kind in _LIMITS:
        key, sign = _LIMITS[kind]
        return f"{_found(found)}, must be {sign} {context[key]:g}"
    if kind == "invalid_key":
        return "a key must be a text; put it in quotes"
    quotes = "; put it in quotes" if kind == "string_type" and _is_scalar(found) else ""
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"{_found(found)}, {' '.join(line['msg'].split())}"
    return f"{_found(found)}, must be {expected}{quotes}"


def _is_scalar(value: Any) -> bool:
    return value is not None and not isinstance(value, list | dict | tuple)


def _found(value: Any) -> str:
    text = inline(value) if isinstance(value, list | dict | tuple) else _scalar(value)
    if len(text) > _LONGEST_FOUND:
        text = text[: _LONGEST_FOUND - 1] + "…"
    return f"found {text}"


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, str) else f"{value}"


def _choices(expected: str, found: Any) -> str:
    """Return what a literal allows; pydantic writes it as 'a', 'b' or 'c'."""
    names = expected.replace("'", "").replace(" or ", ", ").split(", ")
    allowed = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    close = difflib.get_close_matches(str(found), names, n=1) if len(names) > 1 else []
    return allowed + (f"; did you mean {close[0]}?" if close else "")


def _unknown_key(location: _Location, values: Mapping[str, Any]) -> str:
    key = str(location[-1])
    models = models_at(location[:-1], values)
    names = list(dict.fromkeys(name for model in models for name in model.model_fields))
    close = difflib.get_close_matches(key, names, n=1)
    if close:
        return f"unknown key; did you mean {close[0]}?"
    others = [model for model in _siblings(location[:-1]) if key in model.model_fields]
    if others:
        return f"only kind: {kind_of(others[0])} has this key; remove it or change the kind"
    return f"unknown key; allowed are {', '.join(names)}"


def _siblings(location: _Location) -> list[type[Section]]:
    # Without values no kind is known, so all models of the place are returned.
    return models_at(location, None)


def _missing(location: _Location, values: Mapping[str, Any]) -> str:
    name = location[-1]
    if isinstance(name, int):
        return f"missing; the list needs an entry number {name}"
    models = models_at(location[:-1], values)
    kinds = [kind for model in models if (kind := kind_of(model)) is not None]
    if name == "kind" and kinds:
        return f"missing, must be one of {', '.join(kinds)}"
    fields = [model.model_fields[name] for model in models if name in model.model_fields]
    if not fields:
        return "missing, must be given"
    sentence = str(fields[0].description).rstrip(".")
    return f"missing, must be given: {sentence[0].lower()}{sentence[1:]}"
