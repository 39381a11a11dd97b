"""What tests of recipes share."""

from pathlib import Path

import pytest

from distill.recipe.load import load_recipe
from export.runtime.errors import RecipeError

MINIMAL = "teacher: {model: some/teacher}\n"


def mistakes(path: Path, *overrides: str) -> list[str]:
    """Return the lines of the error, the folder of the recipe taken out."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides=overrides)
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()
