"""Part of several.py: starts projections on each process's share."""

import torch
from accelerate import Accelerator
from torch import nn

from distill.train.projection import Solution, StartBatch, start_projections
from students.config import StudentConfig
from students.model import StudentModel

ROWS = 16


# One tower with batch norms, which see a process's share of a batch, and one without.
TOWERS = {"test_resnet": {}, "test_vit": {"img_size": 32}}


def started_projections(accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """Return the weights of students whose projections all processes started together."""
    rows = ROWS // accelerator.num_processes
    first = accelerator.process_index * rows
    state = {}
    for backbone, arguments in TOWERS.items():
        model, solution = start(backbone, arguments, slice(first, first + rows))
        weights = {**model.state_dict(), "ridge": torch.tensor(solution.ridge)}
        state |= {f"{backbone}.{name}": value for name, value in weights.items()}
    return state


def start(backbone: str, arguments: dict[str, int], mine: slice) -> tuple[StudentModel, Solution]:
    torch.manual_seed(0)
    image = {"backbone": backbone, "arguments": arguments, "projection": "linear"}
    model = StudentModel(StudentConfig(image=image, text=None, projection_dim=12))
    batches = []
    view = torch.randn(3 * 32 * 32, 12) / 55
    for number in range(8):
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randn(ROWS, 3, 32, 32, generator=generator)
        teacher = nn.functional.normalize(pixels.flatten(1) @ view + 1.0, dim=1)
        batches.append(StartBatch(pixels[mine], None, teacher[mine], None))
    return model, start_projections(model, batches, device=torch.device("cpu"))["image"]
