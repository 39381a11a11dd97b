"""A small world for a run's parts: a few pictures, the demo's teacher, a student of a moment."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from distill.data.scenes import render_scenes
from distill.recipe.config import RunConfig
from distill.recipe.load import resolve

Configure = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the table of 24 captioned and labelled pictures."""
    folder = tmp_path_factory.mktemp("world") / "pictures"
    return render_scenes(folder, count=24, seed=3, image_size=32)


@pytest.fixture(scope="session")
def teacher() -> Path:
    """Return the folder of the demo's teacher, whose embeddings are 128 wide."""
    with resources.as_file(resources.files("distill.demo")) as package:
        return package / "teacher"


@pytest.fixture
def configure(tmp_path: Path, pictures: Path, teacher: Path) -> Configure:
    """Return a function that resolves the small recipe, with sections merged, losses replaced."""

    def make(*overrides: str, **changes: Any) -> RunConfig:
        values: dict[str, Any] = {
            "output": str(tmp_path / "run"),
            "teacher": {"model": str(teacher)},
            "student": {
                "image": {
                    "backbone": "test_vit",
                    "pretrained": False,
                    "image_size": 32,
                    "arguments": {"embed_dim": 16, "depth": 1, "num_heads": 2},
                },
                "text": {
                    "model": None,
                    "config": {
                        "hidden_size": 16,
                        "num_hidden_layers": 1,
                        "num_attention_heads": 2,
                        "intermediate_size": 32,
                    },
                    "tokenizer": str(teacher),
                    "pretrained": False,
                    "context_length": 24,
                },
            },
            "data": {"train": {"kind": "table", "path": str(pictures)}, "workers": 0},
            "cache": {"views": 1},
            "losses": {"kl_divergence": 1, "embedding_alignment": 5},
            "train": {"batch_size": 8, "steps": 2, "warmup_steps": 1, "validate_every": 2},
        }
        for key, change in changes.items():
            both = (
                key != "losses" and isinstance(change, dict) and isinstance(values.get(key), dict)
            )
            values[key] = {**values[key], **change} if both else change
        return resolve(values, overrides=overrides, where="r.yaml")

    return make
