"""Loading a recipe: from YAML and ``--set`` to a checked RunConfig.

All mistakes of a recipe are reported at once, one line each.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill.recipe._overrides import apply_override
from distill.recipe.config import RunConfig
from distill.recipe.errors import error_lines
from distill.recipe.text import read_yaml, unshared
from export.runtime.errors import RecipeError


def load_recipe(path: Path, *, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe file, apply ``--set`` overrides, and check it.

    Raises:
        RecipeError: The file cannot be read or a field is wrong; one line for each mistake.
    """
    return resolve(read_recipe(path), overrides=overrides, where=str(path))


def read_recipe(path: Path) -> Any:
    """Return the unchecked contents of a recipe file.

    Raises:
        RecipeError: The file cannot be read, is not YAML, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise RecipeError(
            f"{path}: there is no such recipe; `clip-distill recipe > {path}` writes one"
        ) from error
    except IsADirectoryError as error:
        raise RecipeError(f"{path}: a folder, not a recipe; name a YAML file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a text file; {error}") from error
    values = read_yaml(text, where=str(path))
    if values is None:
        raise RecipeError(
            f"{path}: the recipe is empty; `clip-distill recipe` prints one to start from"
        )
    return values


def resolve(values: Any, *, overrides: Sequence[str] = (), where: str) -> RunConfig:
    """Apply overrides to the values of a recipe, and check them.

    Args:
        values: The recipe as a map.
        overrides: Texts ``a.b=value`` with the value in YAML; later ones win.
        where: What errors name: the recipe's file, or ``command line``.

    Raises:
        RecipeError: A field or an override is wrong; one line for each mistake.
    """
    if not isinstance(values, Mapping):
        raise RecipeError(f"{where}: found a {type(values).__name__}, must be a map of keys")
    changed = unshared(values)
    overridden = [apply_override(changed, override) for override in overrides]
    try:
        return RunConfig.model_validate(changed)
    except ValidationError as error:
        lines = error_lines(error, changed, where=where, overridden=overridden)
        raise RecipeError("\n".join(lines)) from error
