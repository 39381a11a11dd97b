"""Overrides: ``--set a.b=value``, applied to the values of a recipe before they are checked."""

from collections.abc import Mapping
from typing import Any

from distill.recipe.errors import models_at
from distill.recipe.text import inline, read_yaml
from export.runtime.errors import RecipeError


def apply_override(values: dict[str, Any], override: str) -> str:
    """Set one value of a recipe in place, and return its dotted path.

    Raises:
        RecipeError: The override does not read ``a.b=value``, or its path leads through a plain
            value or a missing entry of a list.
    """
    path, equals, text = override.partition("=")
    path = path.strip()
    parts: list[int | str] = [int(part) if part.isdecimal() else part for part in path.split(".")]
    if not equals or "" in parts:
        raise RecipeError(f"--set {override}: must be a dotted path and a value, a.b=value")
    value = read_yaml(text, where=f"--set {path}")
    place: Any = values
    for number, part in enumerate(parts):
        done, location = ".".join(map(str, parts[:number])), tuple(parts[:number])
        _check_step(place, part, path=path, done=done)
        if number == len(parts) - 1:
            place[part] = value
        elif isinstance(place, dict) and part not in place:
            place[part] = _inside_default(location, part, values, path=path)
        place = place[part]
    return path


def _check_step(place: Any, part: int | str, *, path: str, done: str) -> None:
    """Refuse a step of a path that leads nowhere."""
    match place:
        case dict():
            if isinstance(part, int):
                raise RecipeError(
                    f"--set {path}: {done or 'the recipe'} is a single entry, not a list; "
                    f"remove the {part}"
                )
        case list():
            if isinstance(part, str):
                raise RecipeError(
                    f"--set {path}: {done} is a list of {len(place)}; pick an entry by its "
                    f"number, as in {done}.0.{part}"
                )
            if part >= len(place):
                raise RecipeError(
                    f"--set {path}: {done} has no entry {part}; its list has {len(place)}, the "
                    f"first is 0, and --set {done}=[…] replaces the list"
                )
        case _:
            raise RecipeError(
                f"--set {path}: {done} is {inline(place)}, which has nothing inside to set; "
                f"replace it whole, --set {done}=…"
            )


def _inside_default(
    location: tuple[int | str, ...], part: int | str, values: Mapping[str, Any], *, path: str
) -> dict[str, Any] | list[Any]:
    """Return the map or list to start from, for a field that the recipe leaves at its default."""
    for model in models_at(location, values):
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        if isinstance(field.default, str | int | float):
            done = ".".join(map(str, (*location, part)))
            raise RecipeError(
                f"--set {path}: {done} is {inline(field.default)}, which has nothing inside to "
                f"set; replace it whole, --set {done}=…"
            )
        if isinstance(field.default, tuple):
            return list(field.default)
        kind = getattr(field.default, "kind", None)
        return {} if kind is None else {"kind": kind}
    return {}
