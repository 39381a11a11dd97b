"""The benchmark for GPUs: what it needs, how it counts, and what it says without a GPU."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import nn

ROOT = Path(__file__).parents[2]
NEEDED = ("torch", "transformers", "timm", "accelerate", "numpy")
# Some releases of the needed packages bring them, others do not.
NOT_EVERYWHERE = {"pydantic", "pydantic-core", "typer", "rich"}


def what_they_bring() -> set[str]:
    """Return the distributions that a fresh environment has once the needed ones are installed."""
    found: set[str] = set()
    todo = list(NEEDED)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found or name in NOT_EVERYWHERE:
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        for requirement in map(Requirement, requirements):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    return found


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Return a folder of links to these distributions alone."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name in what_they_bring():
        distribution = importlib.metadata.distribution(name)
        site = Path(str(distribution.locate_file("")))
        for top in {file.parts[0] for file in distribution.files or []}:
            link = folder / top
            if top not in ("..", "__pycache__") and not link.exists():
                link.symlink_to(site / top)
    return folder


def run(*arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = [str(ROOT)] if site is None else [str(site), str(ROOT)]
    return subprocess.run(
        # -S leaves out the packages of the environment that the tests run in.
        [sys.executable, *(["-S"] if site else []), "-m", "benchmarks.gpu", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_it_runs_with_nothing_but_the_packages_it_names(fresh: Path, tmp_path: Path) -> None:
    assert not (fresh / "open_clip").exists()
    assert not (fresh / "pydantic").exists()
    out = tmp_path / "gpu.json"
    arguments = ["--cpu", "--quick", "--steps", "1", "--warmup", "0", "--micro-batch-size", "16"]
    done = run(*arguments, "--out", str(out), site=fresh)
    assert done.returncode == 0, done.stderr
    assert "measure nothing" in done.stdout
    written = json.loads(out.read_text())
    assert written["is_a_measurement"] is False
    found = [(row["teacher"], row["batch_size"]) for row in written["rows"]]
    assert found == [("cached", 16), ("cached", 32), ("live", 16), ("live", 32)]
    assert all(row["images_per_second"] > 0 for row in written["rows"])
    given, again = written["rows"][:2]
    # Gradient caching embeds once more: four thirds of the work, apart from the losses.
    assert 1.3 < again["flops"] / (2 * given["flops"]) < 1.36


@pytest.mark.slow
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run()
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no CUDA device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 4, 16])
def test_a_step_counts_as_three_passes_whatever_the_groups(groups: int) -> None:
    from benchmarks.gpu import count_flops

    layer = nn.Conv2d(16, 32, 3, padding=1, stride=2, groups=groups)
    inputs = torch.randn(2, 16, 8, 8, requires_grad=True)
    forward = 2 * 2 * (32 * 4 * 4) * (16 // groups * 9)
    assert count_flops(lambda: layer(inputs)) == forward
    assert count_flops(lambda: layer(inputs).sum().backward()) == 3 * forward
