"""Checkpoints are complete or absent, and only the newest is kept."""

import io
from pathlib import Path

import pytest

from export.runtime.errors import RunError
from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import nn

    from distill.train.checkpoint import (
        Resumable,
        TrainingState,
        latest_checkpoint,
        load_checkpoint,
        save_checkpoint,
    )
    from students.config import StudentConfig
    from students.encoder import Student
    from students.model import StudentModel


def make() -> tuple[Student, Resumable]:
    image = {"backbone": "test_resnet", "arguments": {}, "projection": "linear"}
    from students.build import build_towers

    student = build_towers(
        image={**image, "pretrained": False, "weights": None, "image_size": None},
        text=None,
        width=8,
        logit_scale=10.0,
    )
    assert isinstance(student.model, StudentModel)
    assert isinstance(student.model.config, StudentConfig)
    optimizer = torch.optim.AdamW(student.model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer)
    return student, Resumable([optimizer], [schedule])


def step(model: nn.Module, training: Resumable) -> None:
    torch.manual_seed(1)
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)
    training.optimizers[0].step()
    training.schedules[0].step()


def test_resuming_equals_training_without_a_stop(tmp_path: Path) -> None:
    student, training = make()
    step(student.model, training)
    state = TrainingState(step=1, best={"step": 1, "value": 0.5})
    save_checkpoint(tmp_path, state, student=student, training=training)
    step(student.model, training)

    other, fresh = make()
    path = latest_checkpoint(tmp_path)
    assert path is not None
    assert load_checkpoint(path, model=other.model, training=fresh) == state
    step(other.model, fresh)
    ours, theirs = student.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    student, training = make()
    for number in (3, 7):
        save_checkpoint(tmp_path, TrainingState(number), student=student, training=training)
    assert [path.name for path in tmp_path.iterdir()] == ["00000007"]


def test_an_incomplete_checkpoint_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, training = make()
    save_checkpoint(tmp_path, TrainingState(3), student=student, training=training)

    def dies(_: Student, path: Path) -> None:
        path.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(Student, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, TrainingState(9), student=student, training=training)
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "00000003"


def test_the_error_names_a_damaged_checkpoint(tmp_path: Path) -> None:
    student, training = make()
    path = save_checkpoint(tmp_path, TrainingState(3), student=student, training=training)
    (path / "training.pt").write_bytes(b"half")
    with pytest.raises(RunError, match="00000003"):
        load_checkpoint(path, model=student.model, training=training)


def test_moments_get_the_memory_layout_of_their_weights() -> None:
    """Fused AdamW goes through memory, so another memory layout would scramble its moments."""
    weights = torch.randn(4, 3, 2, 2)
    gradients = [torch.randn(4, 3, 2, 2) for _ in range(2)]

    def step(weight: torch.Tensor, optimizer: torch.optim.Optimizer, number: int) -> None:
        weight.grad = gradients[number].to(memory_format=torch.channels_last)
        optimizer.step()

    whole = torch.nn.Parameter(weights.clone())
    optimizer = torch.optim.AdamW([whole], lr=0.1, fused=True)
    for number in range(2):
        whole.grad = gradients[number].clone()
        optimizer.step()
        if number == 0:
            saved = Resumable([optimizer], []).state()
            middle = whole.detach().clone()
            saved = torch.load(_stored(saved), weights_only=True)
    other = torch.nn.Parameter(middle.to(memory_format=torch.channels_last))
    resumed = torch.optim.AdamW([other], lr=0.1, fused=True)
    Resumable([resumed], []).restore(saved)
    step(other, resumed, 1)
    torch.testing.assert_close(other, whole, rtol=1e-6, atol=1e-7)


def _stored(values: dict[str, object]) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(values, buffer)
    buffer.seek(0)
    return buffer
