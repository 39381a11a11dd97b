"""Run by test_projection.py under torchrun: starts projections on each process's share."""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from distill.train.projection import StartBatch, start_projections
from students.config import StudentConfig
from students.model import StudentModel

ROWS = 16


def main(expected_processes: int, folder: str) -> None:
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == expected_processes
    torch.manual_seed(0)
    model = StudentModel(
        StudentConfig(
            image={"backbone": "test_resnet", "arguments": {}, "projection": "linear"},
            text=None,
            projection_dim=12,
        )
    )
    rows = ROWS // expected_processes
    first = accelerator.process_index * rows
    batches = []
    view = torch.randn(3 * 32 * 32, 12) / 55
    for number in range(8):
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randn(ROWS, 3, 32, 32, generator=generator)
        teacher = nn.functional.normalize(pixels.flatten(1) @ view + 1.0, dim=1)
        mine = slice(first, first + rows)
        batches.append(StartBatch(pixels[mine], None, teacher[mine], None))
    solution = start_projections(model, batches, device=torch.device("cpu"))["image"]
    state = {**model.state_dict(), "ridge": torch.tensor(solution.ridge)}
    torch.save(state, Path(folder) / f"{expected_processes}.{accelerator.process_index}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
