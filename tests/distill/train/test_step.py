"""The gradient of a step is the same at every world size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("gradients.py")


def gradients(processes: int, folder: Path) -> dict[str, torch.Tensor]:
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
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_give_the_gradient_of_one(processes: int, tmp_path: Path) -> None:
    one, several = gradients(1, tmp_path), gradients(processes, tmp_path)
    assert set(one) == set(several)
    for name, expected in one.items():
        scale = expected.abs().max().item()
        assert scale > 0, name
        assert torch.allclose(several[name], expected, rtol=1e-5, atol=1e-5 * scale), name
