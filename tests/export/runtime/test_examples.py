"""The examples in the docstrings of the runtime run as they are printed."""

import doctest
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

DOCUMENTED = {
    "export.runtime.decode": ["decode"],
    "export.runtime.model": [
        "EdgeModel",
        "EdgeModel.classify",
        "EdgeModel.embed_images",
        "EdgeModel.embed_labels",
        "EdgeModel.embed_texts",
    ],
    "export.runtime.preprocess": ["Preprocessing"],
}


@pytest.fixture
def workplace(
    make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Change to a folder with the bundle and the photo that the examples load."""
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    make_bundle("runs/mine/bundle")
    Image.new("RGB", (60, 40), "red").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("module", DOCUMENTED)
def test_examples_run(module: str) -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(verbose=False)
    found = [
        test for test in finder.find(importlib.import_module(module), globs={}) if test.examples
    ]
    assert sorted(test.name.removeprefix(f"{module}.") for test in found) == DOCUMENTED[module]
    for test in found:
        assert runner.run(test).failed == 0, test.name
