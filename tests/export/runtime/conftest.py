"""The hand-made bundle as a fixture."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.export.runtime.hand_made import (
    MANIFEST,
    word_tokenizer,
    write_image_graph,
    write_text_graph,
)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the bundle; its keywords replace entries of the manifest."""

    def make(name: str = "bundle", **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        manifest = {**MANIFEST, **changes}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        if manifest["image"] is not None:
            write_image_graph(folder / "image.onnx")
        if manifest["text"] is not None:
            write_text_graph(folder / "text.onnx")
            word_tokenizer().save(str(folder / "tokenizer.json"))
        return folder

    return make


@pytest.fixture
def bundle(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle()
