"""The gradient of a step is the same at every world size, for every term."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.losses.catalogue import TERMS
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

SCRIPT = Path(__file__).with_name("gradients.py")
Found = dict[str, dict[str, torch.Tensor]]


def gradients(processes: int, folder: Path) -> Found:
    path = folder / f"{processes}.pt"
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        launcher += ["--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [*launcher, str(SCRIPT), str(processes), str(path)],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    loaded: Found = torch.load(path, weights_only=True)
    return loaded


@pytest.fixture(scope="module")
def of_one(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return gradients(1, tmp_path_factory.mktemp("one"))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_give_the_gradient_of_one_process(
    processes: int, of_one: Found, tmp_path: Path
) -> None:
    several = gradients(processes, tmp_path)
    assert several.keys() == of_one.keys()
    assert {name.split()[0] for name in of_one} >= set(TERMS)
    for term, expected in of_one.items():
        largest = max(gradient.abs().max().item() for gradient in expected.values())
        assert largest > 0, term
        for name, gradient in expected.items():
            bound = 1e-5 * gradient.abs().max().item()
            # A bias that cancels and a tower that a term passes over: zeros, or absent.
            found = several[term].get(name, torch.zeros_like(gradient))
            assert (found - gradient).abs().max().item() <= bound, (term, name)
        assert several[term].keys() - expected.keys() <= {"text.weight", "text.bias"}


@pytest.mark.slow
def test_a_process_without_rows_works(tmp_path: Path) -> None:
    code = (
        "import torch, torch.distributed as dist\n"
        "from distill.losses.distributions import kl_divergence\n"
        "from distill.losses.embeddings import Embeddings\n"
        "from distill.losses.tiled.tiles import tiling\n"
        "dist.init_process_group('gloo')\n"
        "assert dist.get_world_size() == 4\n"
        "torch.manual_seed(0)\n"
        "rows = [torch.nn.functional.normalize(torch.randn(3, 5), dim=1) for _ in range(4)]\n"
        "for row in rows: row.requires_grad_()\n"
        "student = Embeddings(rows[0], rows[1], torch.tensor(5.0))\n"
        "teacher = Embeddings(rows[2], rows[3], torch.tensor(5.0))\n"
        "whole = kl_divergence(student, teacher)\n"
        "wanted = torch.autograd.grad(whole, rows[0])[0]\n"
        "with tiling(spread=True): spread = kl_divergence(student, teacher)\n"
        "found = torch.autograd.grad(spread, rows[0])[0]\n"
        "dist.all_reduce(found)\n"
        "torch.testing.assert_close(spread, whole)\n"
        "torch.testing.assert_close(found / 4, wanted)\n"
    )
    script = tmp_path / "three_rows.py"
    script.write_text(code)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node=4",
            "--standalone",
            script,
        ],
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
