"""Several processes together compute what one process does."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.losses.catalogue import TERMS
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from tests.distill.train import several
    from tests.distill.train.pieces import assert_close

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("several.py")
Result = Callable[..., Any]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Return a function that returns a part's result; each number of processes runs once."""
    folders: dict[int, Path] = {}

    def load(part: str, *, processes: int, rank: int = 0) -> Any:
        if processes not in folders:
            folders[processes] = tmp_path_factory.mktemp("processes")
            launch(processes, folders[processes])
        return torch.load(folders[processes] / f"{part}.{rank}.pt", weights_only=True)

    return load


def launch(processes: int, folder: Path) -> None:
    if processes == 1:
        several.main(1, folder)
        return
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    done = subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), str(processes), str(folder)],
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_give_the_gradient_of_one_process(processes: int, result: Result) -> None:
    one, several = result("terms", processes=1), result("terms", processes=processes)
    assert several.keys() == one.keys()
    assert {name.split()[0] for name in one} >= set(TERMS)
    for term, expected in one.items():
        largest = max(gradient.abs().max().item() for gradient in expected.values())
        assert largest > 0, term
        for name, gradient in expected.items():
            bound = 1e-5 * gradient.abs().max().item()
            # A bias that cancels and a tower that a term passes over: zeros, or absent.
            found = several[term].get(name, torch.zeros_like(gradient))
            assert (found - gradient).abs().max().item() <= bound, (term, name)
        assert several[term].keys() - expected.keys() <= {"text.weight", "text.bias"}


def test_a_process_without_rows_works(result: Result) -> None:
    # Three rows for four processes.
    found = result("three_rows", processes=4)
    torch.testing.assert_close(found["spread"], found["whole"])
    torch.testing.assert_close(found["gradient"], found["expected"])


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_in_pieces_give_the_gradient_of_one(
    processes: int, result: Result
) -> None:
    assert_close(result("pieces", processes=processes), result("pieces", processes=1))


def test_two_processes_use_all_rows_and_get_the_same_solution(result: Result) -> None:
    one = result("starts", processes=1)
    first, second = (result("starts", processes=2, rank=rank) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    means = [name for name in one if name.endswith("running_mean")]
    assert torch.allclose(first[means[0]], one[means[0]], atol=1e-5)
    # Without batch norms the features are those of one process, and so is the regression.
    weight = "test_vit.image_tower.projection.layers.0.weight"
    assert first["test_vit.ridge"] == pytest.approx(one["test_vit.ridge"].item(), rel=1e-4)
    torch.testing.assert_close(first[weight], one[weight], rtol=1e-3, atol=1e-4)


def test_two_processes_lock_towers_like_one(result: Result) -> None:
    one, two = (result("locks", processes=processes) for processes in (1, 2))
    assert set(one) == set(two)
    for name, expected in one.items():
        # What has no gradient but its rounding moves by less than the floor.
        scale = max(expected.abs().max().item(), 0.1)
        assert torch.allclose(two[name], expected, rtol=1e-5, atol=1e-5 * scale), name
