"""The moving average follows its formula, resumes exactly, and is a student itself."""

import copy
from pathlib import Path

import numpy as np
import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import nn

    from distill.train._ema import MovingAverage
    from students.build import build_towers
    from students.encoder import Student, embed_images
    from students.model import load_student


def build() -> Student:
    torch.manual_seed(2)
    image = {"backbone": "test_resnet", "pretrained": False, "image_size": 32}
    return build_towers(image=image, text=None, width=8, logit_scale=10.0)


def move(student: Student, step: int) -> None:
    """Change every weight and every running statistic."""
    generator = torch.Generator().manual_seed(step)
    student.model.train()
    with torch.no_grad():
        student.model.get_image_features(torch.randn(4, 3, 32, 32, generator=generator))
        for weight in student.model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))


def test_the_average_follows_its_formula() -> None:
    student = build()
    average = MovingAverage(student, decay=0.6)
    expected: dict[str, np.ndarray] = {}
    for step in range(1, 9):
        move(student, step)
        average.update(step)
        decay = min(0.6, 1 - step ** (-2 / 3))
        for name, tensor in student.model.state_dict().items():
            value = tensor.double().numpy()
            before = expected.get(name, value)
            counter = not tensor.is_floating_point()
            expected[name] = value if counter else decay * before + (1 - decay) * value
    found = average.student.model.state_dict()
    assert set(found) == set(expected)
    assert any("running_var" in name for name in found)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].double().numpy(), value, rtol=1e-5, atol=1e-6)


def test_a_tensor_with_two_names_is_averaged_once() -> None:
    student = build()
    backbone = student.model.image_tower.backbone
    backbone.layer1[0].bn1.weight = backbone.layer1[0].bn2.weight
    average = MovingAverage(student, decay=0.6)
    for step in (1, 2, 3):
        move(student, step)
        average.update(step)
        if step == 2:
            second = backbone.layer1[0].bn1.weight.detach().clone()
            before = average.student.model.image_tower.backbone.layer1[0].bn1.weight.clone()
    decay = 1 - 3 ** (-2 / 3)
    now = backbone.layer1[0].bn1.weight.detach()
    found = average.student.model.image_tower.backbone.layer1[0].bn1.weight
    assert not torch.equal(second, now)
    assert torch.allclose(found, decay * before + (1 - decay) * now, atol=1e-6)


def test_resuming_is_bit_for_bit_the_same(tmp_path: Path) -> None:
    student = build()
    average = MovingAverage(student, decay=0.9)
    for step in range(1, 5):
        move(student, step)
        average.update(step)
    torch.save((student.model.state_dict(), average.state_dict()), tmp_path / "state.pt")
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    other = build()
    other.model.load_state_dict(weights)
    resumed = MovingAverage(other, decay=0.9)
    resumed.load_state_dict(state)
    for step in range(5, 9):
        move(student, step)
        average.update(step)
        move(other, step)
        resumed.update(step)
    ours, theirs = average.state_dict(), resumed.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_state_of_another_student_is_refused() -> None:
    average = MovingAverage(build(), decay=0.9)
    state = dict(average.state_dict())
    del state["logit_scale"]
    with pytest.raises(RuntimeError, match="logit_scale"):
        average.load_state_dict(state)


def test_the_average_is_a_student_in_evaluation_mode(tmp_path: Path) -> None:
    student = build()
    average = MovingAverage(student, decay=0.9)
    move(student, 1)
    average.update(1)
    kept = copy.deepcopy(average.state_dict())
    move(student, 2)
    assert all(torch.equal(kept[name], tensor) for name, tensor in average.state_dict().items())
    assert not any(module.training for module in average.student.model.modules())
    assert not any(weight.requires_grad for weight in average.student.model.parameters())
    assert student.model.training
    assert all(weight.requires_grad for weight in student.model.parameters())
    average.student.save(tmp_path / "student")
    loaded = load_student(tmp_path / "student").model
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = embed_images(loaded.eval(), pixels)
        assert torch.allclose(found, embed_images(average.student.model, pixels), atol=1e-6)
    assert isinstance(loaded, nn.Module)
