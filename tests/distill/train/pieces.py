"""Part of several.py, and of test_gradient_cache.py: the gradient of a step cut into pieces."""

import torch
from accelerate import Accelerator
from torch.nn.functional import normalize

from distill.losses.embeddings import Embeddings
from distill.losses.weighted import Term, WeightedLoss
from distill.train.piece import Piece
from distill.train.step import GlobalLoss, TrainableStudent, training_step
from students.config import StudentConfig
from students.model import StudentModel

ROWS, WIDTH = 16, 8
BERT = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
LOSS = {
    "kl_divergence": Term(weight=1.0, arguments={"temperature": 2.0}),
    "embedding_alignment": Term(weight=5.0),
    "contrastive": Term(weight=0.5),
    "relational": Term(weight=0.5),
}


def make_student(**bert: float) -> TrainableStudent:
    torch.manual_seed(0)
    model = StudentModel(
        StudentConfig(
            image={"backbone": "test_vit", "arguments": {"img_size": 32}},
            text={"config": {**BERT, **bert}},
            projection_dim=WIDTH,
        )
    )
    return TrainableStudent(model, mean=(0.5,) * 3, std=(0.5,) * 3).train()


def make_pieces(rows: range, size: int) -> list[Piece]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (ROWS, 32, 32, 3), dtype=torch.uint8, generator=generator)
    hidden = torch.rand(ROWS, 32, 32, generator=generator) < 0.4
    lengths = torch.randint(3, 12, (ROWS,), generator=generator)
    words = torch.randint(1, 50, (ROWS, 12), generator=generator)
    pieces = []
    for first in range(rows.start, rows.stop, size):
        part = slice(first, min(first + size, rows.stop))
        longest = int(lengths[part].max())
        mask = (torch.arange(longest) < lengths[part, None]).long()
        tokens = {"input_ids": words[part, :longest] * mask, "attention_mask": mask}
        pieces.append(Piece(pixels[part], hidden[part], tokens))
    return pieces


def make_loss() -> GlobalLoss:
    generator = torch.Generator().manual_seed(2)
    image, text = (normalize(torch.randn(ROWS, WIDTH, generator=generator)) for _ in range(2))
    return GlobalLoss(
        WeightedLoss(LOSS),
        teacher=Embeddings(image, text, torch.tensor(20.0)),
        groups=torch.tensor([0, 1, 2, 3, 0, 5, 6, 7, 8, -1, 10, 11, 12, 12, 14, -1]),
        banks=None,
        progress=0.0,
        tile_rows=5,
    )


def assert_close(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], *, rounding: float = 1e-8
) -> None:
    """Compare gradients by name, each relative to its largest entry."""
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        scale = tensor.abs().max().item()
        if name.endswith("key.bias"):
            # A softmax over keys ignores it, so its gradient is only rounding error.
            assert scale < rounding
            continue
        assert scale > 0, name
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5 * scale, msg=name)


def gradients_in_pieces(accelerator: Accelerator, size: int) -> dict[str, torch.Tensor]:
    """Return the loss and gradients of a step whose batch the processes cut into pieces."""
    student = make_student()
    share = ROWS // accelerator.num_processes
    first = accelerator.process_index * share
    result = training_step(
        accelerator.prepare(student),
        make_pieces(range(first, first + share), size),
        make_loss(),
        optimizers=[],
        accelerator=accelerator,
        gradient_clip=None,
    )
    gradients = {name: weight.grad for name, weight in student.named_parameters()}
    return {"loss": torch.tensor(result.loss), **gradients}
