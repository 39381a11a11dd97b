import sys
from pathlib import Path

import pytest

from tests.distill.cli.pieces import Pipeline


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    stand_in = Pipeline()
    monkeypatch.setitem(sys.modules, "distill.run.pipeline", stand_in)
    return stand_in


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text("teacher: {model: a/b}\n")
    return path
