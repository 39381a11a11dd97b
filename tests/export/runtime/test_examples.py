"""The examples in the docstrings of the runtime run as they are printed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.examples import check_examples

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
    check_examples(module, documented=DOCUMENTED[module])
