"""Run by test_step.py under torchrun: writes the gradient of one step over the global batch."""

import sys

import torch
from accelerate import Accelerator
from torch import nn

from distill.losses import Embeddings, Term, WeightedLoss
from distill.train.step import gather_rows


class TwoTowers(nn.Module):
    """Two linear towers without batch statistics, and a learnable scale."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Linear(12, 8)
        self.text = nn.Linear(10, 8)
        self.logit_scale = nn.Parameter(torch.tensor(2.3))

    def forward(
        self, image: torch.Tensor, text: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        normalise = nn.functional.normalize
        return (
            normalise(self.image(image), dim=-1),
            normalise(self.text(text), dim=-1),
            self.logit_scale.exp(),
        )


def main(expected_processes: int, path: str) -> None:
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == expected_processes
    torch.manual_seed(0)
    model = TwoTowers()
    images, texts = torch.randn(16, 12), torch.randn(16, 10)
    teacher_image = nn.functional.normalize(torch.randn(16, 8), dim=-1)
    teacher_text = nn.functional.normalize(torch.randn(16, 8), dim=-1)
    groups = torch.tensor([0, 1, 2, 3, 0, 5, 6, 7, 8, -1, 10, 11, 12, 12, 14, -1])
    rows = 16 // expected_processes
    mine = slice(accelerator.process_index * rows, (accelerator.process_index + 1) * rows)
    wrapped = accelerator.prepare(model)
    image, text, scale = wrapped(images[mine], texts[mine])
    loss = WeightedLoss(
        {
            "kl_divergence": Term(weight=1.0, arguments={"temperature": 2.0}),
            "embedding_alignment": Term(weight=5.0, arguments={}),
            "contrastive": Term(weight=0.5, arguments={}),
        }
    )
    total, _ = loss(
        Embeddings(gather_rows(image), gather_rows(text), scale),
        Embeddings(
            gather_rows(teacher_image[mine]), gather_rows(teacher_text[mine]), torch.tensor(20.0)
        ),
        groups=groups,
        progress=0.0,
    )
    accelerator.backward(total)
    if accelerator.is_main_process:
        gradients = {name: weight.grad for name, weight in model.named_parameters()}
        torch.save({"loss": total.detach(), **gradients}, path)
    accelerator.end_training()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
