"""The recipes of docs/data.md are recipes."""

import re
from pathlib import Path

import pytest
import yaml

from distill.recipe.load import resolve

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
SNIPPETS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_is_a_recipe(snippet: str) -> None:
    values = yaml.safe_load(snippet)
    config = resolve({"teacher": {"model": "clip"}, **values}, where="docs/data.md")
    train = values["data"]["train"]
    kinds = [entry["kind"] for entry in (train if isinstance(train, list) else [train])]
    assert [entry.kind for entry in config.train_sources] == kinds
