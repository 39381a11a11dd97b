"""Room on the disk and in memory."""

import shutil
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distill.doctor.finding import Finding
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import nn
    from transformers import CLIPConfig, CLIPModel

    from distill.doctor.machine import (
        Memory,
        activation_bytes,
        examine_disk,
        examine_memory,
        free_memory,
    )


def levels(findings: Sequence[Finding]) -> list[str]:
    return [finding.level for finding in findings]


# --- disk


def test_a_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 0, 1000))
    # Both folders are on one disk, and neither exists yet.
    run, cache = tmp_path / "run", tmp_path / "a" / "cache"
    assert levels(examine_disk({run: 400, cache: 600})) == ["fine"]
    (finding,) = examine_disk({run: 400, cache: 601})
    assert finding.level == "wrong"
    assert "1.0 kB will be written, 1.0 kB are free" in finding.text
    assert "cache.folder" in finding.way_out
    assert not run.exists()


def test_folders_on_two_disks_are_checked_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/proc")
    if not other.exists():
        pytest.skip("needs a second file system")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage(9, 9, 10 if path == other else 10**6)
    )
    assert levels(examine_disk({Path("/"): 100, other: 11})) == ["fine", "wrong"]


# --- memory


def test_memory_that_is_too_small() -> None:
    asked = Memory(weights=500, activations=300, banks=100, teacher=50, embedding=200)
    assert asked.total == 950
    assert levels(examine_memory(asked, free=950, device="cpu")) == ["fine"]
    (finding,) = examine_memory(asked, free=949, device="cpu")
    assert finding.level == "wrong"
    assert "950 B are needed" in finding.text
    assert "train.micro_batch_size" in finding.way_out
    assert levels(examine_memory(asked, free=None, device="mps")) == ["fine"]


def test_the_teacher_alone_may_need_the_most() -> None:
    asked = Memory(weights=10, activations=10, embedding=5000)
    (finding,) = examine_memory(asked, free=4999, device="cpu")
    assert finding.level == "wrong"
    assert "the teacher's weights" in finding.text


def test_free_memory_is_no_more_than_there_is() -> None:
    free = free_memory("cpu")
    assert free is None or 0 < free < 1 << 50


def chain() -> Any:
    """Return layers whose saved tensors can be counted by hand."""

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(48, 10, bias=False), nn.Sigmoid(), nn.Linear(10, 7, bias=False)
            )
            self.dtype = torch.float32

        def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return self.layers(pixel_values.flatten(1))

    return Chain()


def test_activations_are_what_autograd_keeps() -> None:
    model = chain()
    found = activation_bytes(model, torch.zeros(2, 3, 4, 4), None)
    # Of a pair: the picture, the sigmoid's 10 numbers, the 7 before and after normalising them,
    # with their length and what it is clamped to.
    numbers = 48 + 10 + 7 + 7 + 1
    assert 4 * numbers <= found <= 4 * (numbers + 8)
    assert all(weight.grad is None for weight in model.parameters())


def test_activations_grow_with_the_towers() -> None:
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    found = []
    for layers in (1, 2, 3):
        vision = {**sizes, "num_hidden_layers": layers, "image_size": 32, "patch_size": 8}
        text = {**sizes, "num_hidden_layers": 1, "vocab_size": 20, "eos_token_id": 19}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
        model.eval()
        found.append(activation_bytes(model, torch.zeros(2, 3, 32, 32), None))
        assert not model.training
    # Every layer keeps as much as the others.
    assert found[2] - found[1] == found[1] - found[0] > 17 * 32 * 4
