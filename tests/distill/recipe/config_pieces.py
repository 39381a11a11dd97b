"""What tests of the configuration share: the smallest recipe, and the mistakes of others."""

from typing import Any

import pytest

from distill.recipe.config import RunConfig
from distill.recipe.load import resolve
from export.runtime.errors import RecipeError

TEACHER = {"model": "some/teacher"}


def config(**values: Any) -> RunConfig:
    return resolve({"teacher": TEACHER, **values}, where="r.yaml")


def mistakes(**values: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        config(**values)
    return str(caught.value).splitlines()
