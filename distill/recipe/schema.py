"""The JSON schema of a recipe."""

from typing import Any

from distill.recipe.config import RunConfig


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, which editors use to complete and check one."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RunConfig.model_json_schema(),
        "title": "clip-distill recipe",
    }
