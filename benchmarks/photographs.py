"""The recipe sections that the photograph benchmarks share: data, student, evaluation sets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The retrieval columns of the tables.
RECALLS = {
    "image_to_text_recall@1": "i→t R@1",
    "image_to_text_recall@5": "R@5",
    "image_to_text_recall@10": "R@10",
    "text_to_image_recall@1": "t→i R@1",
    "text_to_image_recall@5": "R@5",
    "text_to_image_recall@10": "R@10",
}
TEMPLATES = ["a photo of a {}.", "a picture of a {}.", "a {}."]
TEXT = {
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}


def table(path: Path) -> dict[str, str]:
    """Return the section of a recipe for a table."""
    return {"kind": "table", "path": str(path)}


def student(
    teacher: Path,
    *,
    backbone: str,
    image_size: int,
    arguments: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the section of a student with two towers of random weights."""
    return {
        "image": {
            "backbone": backbone,
            "pretrained": False,
            "image_size": image_size,
            "arguments": dict(arguments or {}),
        },
        "text": {
            "model": None,
            "config": TEXT,
            "tokenizer": str(teacher),
            "pretrained": False,
            "context_length": 40,
        },
    }


def evaluation_sets(data: Path) -> list[dict[str, Any]]:
    """Return the sections for retrieval on 500 pictures and classification into 33 classes."""
    return [
        {
            "name": "flickr8k",
            "task": "retrieval",
            "data": table(data / "flickr8k" / "captions_val.csv"),
        },
        {
            "name": "caltech33",
            "task": "zero_shot",
            "data": {"kind": "folder", "path": str(data / "caltech33" / "val")},
            "templates": TEMPLATES,
        },
    ]
