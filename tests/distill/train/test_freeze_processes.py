"""Locking and unlocking towers gives the same weights on one process and on two."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch

SCRIPT = Path(__file__).with_name("locks.py")


def weights(processes: int, folder: Path) -> dict[str, torch.Tensor]:
    path = folder / f"{processes}.pt"
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        launcher += ["--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    subprocess.run(
        [*launcher, str(SCRIPT), str(processes), str(path)],
        check=True,
        env=environment,
        capture_output=True,
    )
    loaded: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return loaded


@pytest.mark.slow
def test_two_processes_lock_towers_like_one(tmp_path: Path) -> None:
    one, two = weights(1, tmp_path), weights(2, tmp_path)
    assert set(one) == set(two)
    for name, expected in one.items():
        # What has no gradient but its rounding moves by less than the floor.
        scale = max(expected.abs().max().item(), 0.1)
        assert torch.allclose(two[name], expected, rtol=1e-5, atol=1e-5 * scale), name
