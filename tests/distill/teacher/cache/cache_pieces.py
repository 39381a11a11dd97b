"""Pieces for tests of the cache: a teacher that counts, and a source of picture files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from distill.data.sample import Sample, Skip
from distill.data.scenes import render_scenes
from distill.data.views import ViewSettings
from distill.demo.start import prepare_start
from distill.teacher.cache.build import BuildSettings
from export.runtime.preprocess import Preprocessing

VIEWS = ViewSettings(
    seed=0, kind="random", scale=(0.3, 1.0), ratio=(1.0, 1.0), flip=False, color_jitter=0.0
)
SETTINGS = BuildSettings(
    views=VIEWS,
    view_count=3,
    dtype="float16",
    shard_rows=4,
    batch_size=2,
    workers=0,
    max_skipped=0.01,
)


class CountingTeacher:
    """Embeds a picture by its average colour and a text by its letters, and counts its inputs."""

    name = "counting"
    width = 3
    logit_scale = 20.0
    logit_bias = 0.0
    context_length = 8
    parameters = 0
    bytes = 0
    truncated = 0
    model_type = None
    device = "cpu"
    preprocessing = Preprocessing(
        size=(8, 8),
        resize="square",
        resize_to=None,
        crop=False,
        crop_offset="floor",
        resample="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )

    def __init__(self, fingerprint: str = "f") -> None:
        self.fingerprint = fingerprint
        self.pictures = 0
        self.texts: list[str] = []

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        self.pictures += len(pixels)
        return torch.nn.functional.normalize(pixels.float().mean(dim=(1, 2)), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts += texts
        letters = torch.tensor(
            [[float(text.count(letter)) + 1 for letter in "abc"] for text in texts]
        )
        return torch.nn.functional.normalize(letters, dim=-1)

    def move(self, device: str) -> None:
        self.device = device


class Pictures:
    """A source of picture files."""

    name = "pictures"
    skipped: tuple[Skip, ...] = ()

    def __init__(self, folder: Path, keys: Sequence[str], captions: Sequence[str]) -> None:
        self._samples = [
            Sample(key, folder / key, (caption,), None)
            for key, caption in zip(keys, captions, strict=True)
        ]
        self.rows = len(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


KEYS = [f"{number}.png" for number in range(10)]
CAPTIONS = ["a", "b", "c", "ab", "bc", "ca", "a", "aa", "bb", "cc"]


def silent(part: str, done: int, total: int) -> None:
    """Show nothing."""


def write_pictures(folder: Path) -> Path:
    """Write ten pictures of noise into a folder."""
    generator = np.random.default_rng(0)
    for key in KEYS:
        pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / key)
    return folder


def make_world(folder: Path) -> Path:
    """Write captioned pictures and a small teacher of random weights into a folder."""
    table = render_scenes(folder / "pictures", count=160, seed=3, image_size=48)
    prepare_start(folder / "teacher", table=table, seed=0)
    return folder


def write_recipe(world: Path, output: Path, **changes: Any) -> Path:
    """Write a recipe for the small world next to its run folder; ``changes`` replace sections."""
    values: dict[str, Any] = {
        "output": str(output),
        "teacher": {"model": str(world / "teacher")},
        "student": {
            "image": {"backbone": "test_vit", "pretrained": False, "image_size": 48},
            "text": {
                "model": None,
                "config": {
                    "hidden_size": 32,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "intermediate_size": 64,
                },
                "tokenizer": str(world / "teacher"),
                "pretrained": False,
                "context_length": 24,
            },
        },
        "data": {
            "train": {"kind": "table", "path": str(next((world / "pictures").glob("*.csv")))},
            "workers": 0,
        },
        "cache": {"views": 2, "shard_rows": 4, "batch_size": 4},
        "train": {"batch_size": 16, "steps": 4, "device": "cpu"},
    }
    values.update(changes)
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(values))
    return path
