"""Modules that tests save as TorchScript archives."""

import torch
from torch import nn


class Shelf(nn.Module):
    """Return tensors of many dtypes; two are the same, and one is a view of another."""

    def __init__(self) -> None:
        super().__init__()
        table = torch.arange(24.0).reshape(4, 6)
        self.linear = nn.Linear(3, 2)
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.BatchNorm1d(2)])
        self.halves = nn.Parameter(torch.randn(5).half())
        self.brain = nn.Parameter(torch.randn(5).bfloat16())
        self.scalar = nn.Parameter(torch.tensor(2.5))
        self.turned = nn.Parameter(table.T)
        self.register_buffer("part", table[1:3, ::2])
        self.register_buffer("whole", torch.tensor([1, 2], dtype=torch.int32))
        self.register_buffer("empty", torch.empty(0, 3))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.same = self.linear.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class Speaking(nn.Module):
    """Once scripted, its archive writes a file when ``torch.jit.load`` reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.w

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return (self.w, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.w = torch.from_file("ran", True, 4).fill_(7.0)
        self.training = state[1]
