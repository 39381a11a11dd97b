"""A start for projections: ridge regression onto the teacher's embeddings, in closed form.

Before the first step, the towers see a sample of the data once. The linear projection of each tower
becomes the ridge regression from the tower's features to the teacher's embeddings of the same
pictures or captions. Nothing else in the tower changes, except that new batch norms take their
running statistics from the sample.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import broadcast, gather, reduce
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from export.runtime.errors import RunError
from students.model import StudentModel
from students.towers import ImageTower, TextTower

# The ridges to try, as multiples of the features' mean sum of squares.
GRID = np.logspace(-6, 2, 33)
# To choose among them, one row in 10 is held out, and at most 2,048 rows.
_HELD_OUT = 10
_MOST = 2048


@dataclass(frozen=True)
class StartBatch:
    """This process's rows of a batch of the sample.

    ``pixels`` is normalised float32 ``[B, 3, H, W]``, ``tokens`` are the student's. The teacher's
    embeddings ``[B, D]`` are those of the same pictures and captions. What the student or the
    teacher lacks is None.
    """

    pixels: Tensor | None
    tokens: Mapping[str, Tensor] | None
    teacher_image: Tensor | None
    teacher_text: Tensor | None


@dataclass(frozen=True)
class Solution:
    """A projection ``[D, F]`` in float64, its ridge, and its quality on the held-out rows.

    ``cosine`` is the mean cosine to a row's own target. ``rank`` is the share of all targets that
    are closer than a row's own, the mean over the rows. Both were measured before ``weight`` was
    fitted to all rows, including the held-out ones.
    """

    weight: Tensor
    ridge: float
    cosine: float
    rank: float


def start_projections(
    model: StudentModel, batches: Iterable[StartBatch], *, device: torch.device
) -> dict[str, Solution]:
    """Set the projections of an untrained student to the solved ones, in place.

    The weights become the solution itself, although its norm is smaller than a new layer's. If it
    were scaled up to that norm, the optimizer's steps would hardly turn it. With several processes,
    each contributes the same number of rows, and all end with the same weights.

    Args:
        model: The student, on ``device``, without wrappers.
        batches: The sample.
        device: Where the towers run.

    Returns:
        The solution of each tower, ``image`` and ``text``.

    Raises:
        RunError: A projection is not linear, the teacher has another width, or the sample has
            fewer than two rows.
    """
    towers = {
        name: tower
        for name, tower in (("image", model.image_tower), ("text", model.text_tower))
        if tower is not None
    }
    for name, tower in towers.items():
        _last_layer(name, tower)
    features: dict[str, list[Tensor]] = {name: [] for name in towers}
    targets: dict[str, list[Tensor]] = {name: [] for name in towers}
    with _looking(model):
        for batch in batches:
            pairs: dict[str, tuple[Any, Tensor | None]] = {
                "image": (batch.pixels, batch.teacher_image),
                "text": (batch.tokens, batch.teacher_text),
            }
            for name, tower in towers.items():
                inputs, target = pairs[name]
                if inputs is not None and target is not None:
                    features[name].append(gather(_pooled(tower, inputs, device)))
                    targets[name].append(gather(target.to(device)))
    solutions = {}
    for name, tower in towers.items():
        if features[name]:
            solution = solve_projection(torch.cat(features[name]), torch.cat(targets[name]))
            _put(_last_layer(name, tower), solution.weight, name)
            solutions[name] = solution
    return solutions


def solve_projection(features: Tensor, targets: Tensor) -> Solution:
    """Solve ``min_W Σ ‖W f − t‖² + ridge · ‖W‖²`` in float64 for rows f ``[N, F]``, t ``[N, D]``.

    The projection has no bias, so neither side is centred: the weight must also map the mean of
    the features to the mean of the targets. (A centred solution ignores that mean and loses half
    of the recall.) The ridge is chosen on the held-out rows: with the best one, the fewest targets
    are closer to ``W f`` than its own; ties go to the highest mean cosine. The cosine alone would
    choose too large a ridge, since most of it comes from the mean that all targets share. With the
    chosen ridge, the projection is fitted to all rows.

    Raises:
        RunError: There are fewer than two rows.

    Source: Hoerl and Kennard 1970, https://doi.org/10.1080/00401706.1970.10488634.
    """
    inputs, outputs = features.double(), targets.double()
    count = len(inputs)
    if count < 2:
        raise RunError(
            f"student.projection_start: ridge has {count} rows to solve from and needs at least 2; "
            "raise student.projection_samples, or set projection_start to random"
        )
    every = min(max(_HELD_OUT, -(-count // _MOST)), count)
    held = torch.arange(count, device=inputs.device) % every == every - 1
    fit = _Ridge(inputs[~held], outputs[~held])
    tried = [_score(inputs[held] @ fit.solve(size).T, outputs[held]) for size in GRID]
    best = min(range(len(GRID)), key=lambda number: (tried[number][0], -tried[number][1]))
    rank, cosine = tried[best]
    whole = _Ridge(inputs, outputs)
    return Solution(whole.solve(GRID[best]), float(GRID[best] * whole.unit), cosine, rank)


def _score(found: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the mean rank of each row's own target, from 0 to 1, and the mean cosine to it."""
    cosines = F.normalize(found, dim=1) @ F.normalize(targets, dim=1).T
    own = cosines.diagonal()
    return float((cosines > own[:, None]).double().mean()), float(own.mean())


class _Ridge:
    """Ridge regressions with several ridges, from one eigenvalue decomposition."""

    def __init__(self, inputs: Tensor, outputs: Tensor) -> None:
        gram = inputs.T @ inputs
        self.unit = float(gram.diagonal().mean())
        values, self._vectors = torch.linalg.eigh(gram)
        self._values = values.clamp(min=0)
        self._cross = self._vectors.T @ (inputs.T @ outputs)

    def solve(self, size: float) -> Tensor:
        """Return ``[D, F]`` for the ridge ``size · unit``."""
        # Avoids a division by zero if all features are zero.
        shrunk = self._values + max(size * self.unit, torch.finfo(torch.float64).tiny)
        solved: Tensor = self._vectors @ (self._cross / shrunk[:, None])
        return solved.T


@contextmanager
def _looking(model: StudentModel) -> Iterator[None]:
    """Run the towers without gradient and dropout; new batch norms collect their statistics.

    A batch norm that still has mean 0 and variance 1 normalises by its batch, as in training, and
    keeps the average over the sample. Trained batch norms stay as they are.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    new = {module: module.momentum for module in model.modules() if _is_new(module)}
    for norm in new:
        # Without momentum, the running statistics are a plain average.
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        with torch.no_grad():
            yield
    finally:
        for norm, momentum in new.items():
            norm.momentum = momentum
            for statistic in (norm.running_mean, norm.running_var):
                statistic.copy_(reduce(statistic, reduction="mean"))
        model.eval()
        for module in training:
            module.training = True


def _is_new(module: nn.Module) -> bool:
    return (
        isinstance(module, _BatchNorm)
        and module.running_mean is not None
        and module.running_var is not None
        and not bool(module.running_mean.any())
        and bool((module.running_var == 1).all())
    )


def _pooled(
    tower: ImageTower | TextTower, inputs: Tensor | Mapping[str, Tensor], device: torch.device
) -> Tensor:
    """Return the features that a tower passes to its projection, float32 ``[B, F]``."""
    seen: list[Tensor] = []
    hook = tower.projection.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        if isinstance(inputs, Tensor):
            tower(inputs.to(device))
        else:
            tower(**{name: ids.to(device) for name, ids in inputs.items()})
    finally:
        hook.remove()
    return seen[0].float()


def _last_layer(name: str, tower: ImageTower | TextTower) -> nn.Linear:
    first, *others = tower.projection.layers
    if others or not isinstance(first, nn.Linear):
        raise RunError(
            f"student.{name}.projection: projection_start: ridge needs a linear projection; set it "
            "to linear, or set student.projection_start to random"
        )
    return first


@torch.no_grad()
def _put(layer: nn.Linear, solved: Tensor, name: str) -> None:
    if solved.shape != layer.weight.shape:
        raise RunError(
            f"student.width: the {name} projection has width {layer.weight.shape[0]}, but the "
            f"teacher has {solved.shape[0]}; remove student.width, or set "
            "student.projection_start to random"
        )
    # The last bits of the decomposition may differ between processes.
    layer.weight.copy_(broadcast(solved.to(layer.weight), from_process=0))
