"""A small world: procedural pictures, a random teacher, and a recipe that trains in seconds."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill.data.scenes import render_scenes
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from safetensors.torch import load_file

    from distill.demo.start import prepare_start

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the table of 96 captioned and labelled pictures."""
    folder = tmp_path_factory.mktemp("world") / "pictures"
    return render_scenes(folder, count=96, seed=3, image_size=48)


@pytest.fixture(scope="session")
def teacher(pictures: Path) -> Path:
    """Return the folder of a small CLIPModel with random weights."""
    return prepare_start(pictures.parent.parent / "teacher", table=pictures, seed=0)


Recipe = Callable[..., Path]


@pytest.fixture
def recipe(tmp_path: Path, pictures: Path, teacher: Path) -> Recipe:
    """Return a function that writes the small recipe, with whole sections replaced or merged."""

    def write(name: str = "small", **changes: dict[str, Any] | str | int | None) -> Path:
        values: dict[str, Any] = {
            "output": str(tmp_path / name),
            "teacher": {"model": str(teacher)},
            "student": {
                "image": {"backbone": "test_vit", "pretrained": False, "image_size": 48},
                "text": {
                    "model": None,
                    "config": TEXT,
                    "tokenizer": str(teacher),
                    "pretrained": False,
                    "context_length": 24,
                },
            },
            "data": {"train": {"kind": "table", "path": str(pictures)}, "workers": 0},
            "views": {"scale": [0.6, 1.0]},
            "cache": {"views": 2, "shard_rows": 40, "batch_size": 16},
            "losses": {"kl_divergence": 1, "embedding_alignment": 5},
            "train": {
                "batch_size": 16,
                "steps": 8,
                "warmup_steps": 2,
                "log_every": 1,
                "validate_every": 4,
                "save_every": 3,
            },
        }
        for key, change in changes.items():
            both = isinstance(change, dict) and isinstance(values.get(key), dict)
            values[key] = {**values[key], **change} if both else change
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture
def clip_distill() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the command line in a new process."""

    def call(
        *arguments: str | Path, launcher: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *launcher, "-m", "distill", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return call


def _interrupt_when(
    ready: Callable[[], bool], *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run the command line and press Ctrl-C as soon as ``ready`` says so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "distill", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def interrupt_when() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the command line and presses Ctrl-C when a condition holds."""
    return _interrupt_when


Weights = dict[str, torch.Tensor]


@pytest.fixture
def weights() -> Callable[[Path], Weights]:
    """Return a function that loads the weights of a run's student."""

    def load(folder: Path) -> Weights:
        tensors: Weights = load_file(folder / "student" / "model.safetensors")
        return tensors

    return load


@pytest.fixture
def assert_equal_weights(weights: Callable[[Path], Weights]) -> Callable[[Path, Path], None]:
    """Return a function that compares the students of two runs bit by bit."""

    def compare(first: Path, second: Path) -> None:
        ours, theirs = weights(first), weights(second)
        assert ours.keys() == theirs.keys()
        different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
        assert different == []

    return compare
