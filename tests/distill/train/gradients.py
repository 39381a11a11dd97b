"""Part of several.py: each term's gradient of a step over a global batch."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from distill.losses.catalogue import TERMS
from distill.losses.distributions import kl_divergence
from distill.losses.embeddings import Embeddings
from distill.losses.tiled.tiles import tiling
from distill.losses.weighted import Banks, Term, WeightedLoss
from distill.train.step import gather_rows

# Rows of tiles of one, of two rows, and of a number that divides nothing.
TILES = (None, 1, 3)
ROWS, WIDTH = 20, 8
ARGUMENTS = {"kl_divergence": {"temperature": 2.0}, "soft_target": {"temperature": 2.0}}


class TwoTowers(nn.Module):
    """Two linear towers without batch statistics, a learnable scale and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Linear(12, WIDTH)
        self.text = nn.Linear(10, WIDTH)
        self.logit_scale = nn.Parameter(torch.tensor(2.3))
        self.logit_bias = nn.Parameter(torch.tensor(-1.0))

    def forward(
        self, image: torch.Tensor, text: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        return (
            normalize(self.image(image), dim=-1),
            normalize(self.text(text), dim=-1),
            self.logit_scale.exp(),
            self.logit_bias * 1.0,
        )


def unit(rows: int) -> torch.Tensor:
    return normalize(torch.randn(rows, WIDTH), dim=-1)


def gradients(
    loss: WeightedLoss, rank: int, processes: int, tile_rows: int | None
) -> dict[str, torch.Tensor]:
    """Return the loss and all parameters' gradients of a step, as the wrapper averages them."""
    torch.manual_seed(0)
    model = TwoTowers()
    images, texts = torch.randn(ROWS, 12), torch.randn(ROWS, 10)
    teacher = Embeddings(unit(ROWS), unit(ROWS), torch.tensor(20.0), torch.tensor(-2.0))
    banks = Banks(
        prompts=unit(15),
        corpus_image=unit(23),
        corpus_text=unit(21),
        image_partners=torch.tensor([[0, 3], [0, 7], [5, 20], [11, 1], [19, 3]]),
        text_partners=torch.tensor([[1, 0], [6, 22], [13, 4]]),
    )
    groups = torch.tensor([0, 1, 2, 3, 0, 5, 6, 7, 8, -1, 10, 11, 12, 12, 14, -1, 16, 17, 0, 19])
    rows = ROWS // processes
    mine = slice(rank * rows, (rank + 1) * rows)
    wrapped = (
        model if processes == 1 else DistributedDataParallel(model, find_unused_parameters=True)
    )
    image, text, scale, bias = wrapped(images[mine], texts[mine])
    with tiling(rows=tile_rows, spread=True):
        total, _ = loss(
            Embeddings(gather_rows(image), gather_rows(text), scale, bias),
            teacher,
            groups=groups,
            progress=0.0,
            banks=banks,
        )
    total.backward()
    found = {name: weight.grad for name, weight in model.named_parameters()}
    return {"loss": total.detach(), **{n: g for n, g in found.items() if g is not None}}


def gradients_of_terms(rank: int, processes: int) -> dict[str, dict[str, torch.Tensor]]:
    """Return the gradients of each term, for tiles of several sizes, and of all terms together."""
    found = {}
    for name in TERMS:
        loss = WeightedLoss({name: Term(1.0, ARGUMENTS.get(name, {}))})
        for tile_rows in TILES:
            found[f"{name} in tiles of {tile_rows}"] = gradients(loss, rank, processes, tile_rows)
    everything = WeightedLoss({name: Term(0.5) for name in TERMS})
    found["everything"] = gradients(everything, rank, processes, None)
    if processes > 1:
        # Every process must say the same.
        parts: list[object] = [None] * processes
        dist.all_gather_object(parts, {name: part["loss"] for name, part in found.items()})
        assert all(part == parts[0] for part in parts)
    return found


def gradient_of_three_rows(processes: int) -> dict[str, torch.Tensor]:
    """Return the loss of three rows and its gradient, spread over the processes and not."""
    torch.manual_seed(0)
    rows = [normalize(torch.randn(3, 5), dim=1).requires_grad_() for _ in range(4)]
    student = Embeddings(rows[0], rows[1], torch.tensor(5.0))
    teacher = Embeddings(rows[2], rows[3], torch.tensor(5.0))
    whole = kl_divergence(student, teacher)
    expected = torch.autograd.grad(whole, rows[0])[0]
    with tiling(spread=True):
        spread = kl_divergence(student, teacher)
    gradient = torch.autograd.grad(spread, rows[0])[0]
    if processes > 1:
        dist.all_reduce(gradient)
    return {
        "spread": spread.detach(),
        "whole": whole.detach(),
        "gradient": gradient / processes,
        "expected": expected,
    }
