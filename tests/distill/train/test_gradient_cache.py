"""A step cut into pieces gives the gradient of the whole step, on one process or several."""

from collections.abc import Iterator

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from torch import nn

    from distill.train._gradient_cache import backward_in_pieces, running_statistics_kept
    from distill.train.piece import Piece
    from distill.train.processes import start_accelerator
    from distill.train.step import TrainableStudent, check_finite, training_step
    from students.config import StudentConfig
    from students.model import StudentModel
    from tests.distill.train.pieces import ROWS, assert_close, make_loss, make_pieces, make_student


def gradients(
    student: TrainableStudent, size: int, accelerator: Accelerator | None = None
) -> dict[str, torch.Tensor]:
    student.zero_grad()
    accelerator = accelerator or Accelerator(cpu=True)
    result = training_step(
        accelerator.prepare(student),
        make_pieces(range(ROWS), size),
        make_loss(),
        optimizers=[],
        accelerator=accelerator,
        gradient_clip=None,
    )
    found = {name: weight.grad for name, weight in student.named_parameters()}
    return {
        "loss": torch.tensor(result.loss),
        **{name: gradient for name, gradient in found.items() if gradient is not None},
    }


@pytest.mark.parametrize("size", [1, 3, 8])
def test_pieces_give_the_gradient_of_the_whole_batch(size: int) -> None:
    student = make_student().double()
    assert_close(gradients(student, size), gradients(student, ROWS))


@pytest.fixture
def in_bf16() -> Iterator[Accelerator]:
    yield start_accelerator(device="cpu", precision="bf16")
    # Accelerate would remember the precision in the tests that follow.
    AcceleratorState._reset_state(reset_partial_state=True)


def test_in_bf16_pieces_are_closer_to_the_whole_than_bf16_is_to_fp32(in_bf16: Accelerator) -> None:
    def flat(found: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([found[name].flatten() for name in names])

    names = [name for name, _ in make_student().named_parameters()]
    whole = flat(gradients(make_student(), ROWS, in_bf16))
    pieces = flat(gradients(make_student(), 3, in_bf16))
    student = make_student()
    (piece,) = make_pieces(range(ROWS), ROWS)
    total, _ = make_loss()(student(piece.pixels, piece.hidden, piece.tokens))
    total.backward()
    exact = flat({name: weight.grad for name, weight in student.named_parameters()})
    # A weight's gradient is rounded to bf16 once a piece. It has 8 bits: 2^-8 is 3.9e-3.
    assert 0 < (pieces - whole).norm() / whole.norm() < 2**-8
    assert (pieces - whole).norm() < (whole - exact).norm()
    assert (pieces - exact).norm() < 1.1 * (whole - exact).norm()


def test_dropout_is_the_same_in_both_passes() -> None:
    check_replay(Accelerator(cpu=True))


def test_dropout_is_the_same_in_both_passes_in_bf16(in_bf16: Accelerator) -> None:
    check_replay(in_bf16, rounding=1e-4)


def check_replay(accelerator: Accelerator, **tolerance: float) -> None:
    """The reference keeps the graph of every piece, so dropout draws only once."""
    student = accelerator.prepare(make_student(hidden_dropout_prob=0.3))
    pieces, loss = make_pieces(range(ROWS), 5), make_loss()
    torch.manual_seed(7)
    parts = [student(piece.pixels, piece.hidden, piece.tokens) for piece in pieces]
    whole = parts[0]._replace(
        **{
            name: torch.cat([getattr(part, name) for part in parts])
            for name in parts[0]._fields[:3]
        }
    )
    total, _ = loss(whole)
    total.backward()
    expected = {name: weight.grad.clone() for name, weight in student.named_parameters()}
    student.zero_grad()
    torch.manual_seed(7)
    backward_in_pieces(student, pieces, loss, check=check_finite, accelerator=accelerator)
    found = {name: weight.grad for name, weight in student.named_parameters()}
    assert_close(found, expected, **tolerance)


def batch_norm_student() -> TrainableStudent:
    torch.manual_seed(0)
    model = StudentModel(
        StudentConfig(image={"backbone": "test_resnet"}, text=None, projection_dim=8)
    )
    return TrainableStudent(model, mean=(0.5,) * 3, std=(0.5,) * 3).train()


def test_running_statistics_change_once_in_a_step() -> None:
    student, reference = batch_norm_student(), batch_norm_student()
    pieces = [Piece(piece.pixels, None, None) for piece in make_pieces(range(ROWS), 8)]
    for piece in pieces:
        reference(piece.pixels)

    def loss(outputs):
        return outputs.image.square().sum() + outputs.image.sum(), {}

    backward_in_pieces(student, pieces, loss, check=check_finite, accelerator=Accelerator(cpu=True))
    expected = dict(reference.named_buffers())
    assert any("running_mean" in name for name in expected)
    for name, buffer in student.named_buffers():
        torch.testing.assert_close(buffer, expected[name], msg=name)


def test_running_statistics_and_momentum_are_restored() -> None:
    norm = nn.BatchNorm1d(3, momentum=0.2)
    with running_statistics_kept(norm):
        norm(torch.randn(8, 3) + 5)
    assert norm.running_mean is not None
    assert not norm.running_mean.any()
    assert norm.momentum == 0.2
    assert norm.num_batches_tracked == 0
