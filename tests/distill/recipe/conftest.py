from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def recipe(tmp_path: Path) -> Any:
    """Write a recipe, and return its file."""

    def write(text: str) -> Path:
        path = tmp_path / "r.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
