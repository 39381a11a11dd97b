"""Ctrl-C and going on: nothing is lost, nothing is half written, and nothing changes."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.run.pipeline import run

Recipe = Callable[..., Path]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_student(
    recipe: Recipe,
    clip_distill: Command,
    interrupt_when: Command,
    assert_equal_weights: Callable[[Path, Path], None],
    tmp_path: Path,
) -> None:
    train = {"steps": 40, "save_every": 1000, "validate_every": 1000}
    cut = recipe("cut", train=train, data={"workers": 1})
    metrics = tmp_path / "cut" / "metrics.jsonl"
    stopped = interrupt_when(
        lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 5, "train", cut
    )
    assert stopped.returncode == 130
    assert "saved" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (tmp_path / "cut" / "student").exists()
    again = clip_distill("train", cut)
    assert again.returncode == 0, again.stderr
    whole = run(recipe("whole", train=train), stages=("train",)).path
    assert_equal_weights(tmp_path / "cut", whole)
    steps = [line.split(",")[0] for line in metrics.read_text().splitlines() if '"loss"' in line]
    assert len(steps) >= 40
    assert not list((tmp_path / "cut").rglob(".*.tmp"))


@pytest.mark.slow
def test_ctrl_c_while_caching_keeps_the_whole_shards(
    recipe: Recipe, clip_distill: Command, interrupt_when: Command, tmp_path: Path
) -> None:
    path = recipe("cut", cache={"views": 40, "shard_rows": 8, "batch_size": 4})
    root = tmp_path / "cut" / "cache"
    stopped = interrupt_when(lambda: len(list(root.rglob("images-*.npy"))) >= 4, "cache", path)
    assert stopped.returncode == 130
    assert "Traceback" not in stopped.stderr
    kept = {file: file.stat().st_mtime_ns for file in root.rglob("images-0000[01].npy")}
    assert len(kept) == 2
    assert clip_distill("cache", path).returncode == 0
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    ],
    ids=["torchrun", "accelerate"],
)
def test_two_processes_train_the_same_student_as_one(
    launcher: tuple[str, ...],
    recipe: Recipe,
    clip_distill: Command,
    weights: Callable[[Path], dict[str, torch.Tensor]],
    tmp_path: Path,
) -> None:
    one = run(recipe("one"), stages=("cache", "train")).path
    result = clip_distill("train", recipe("two"), launcher=launcher)
    assert result.returncode == 0, result.stderr
    assert "2 process(es)" in result.stderr
    assert result.stderr.count("2 process(es)") == 1
    ours, theirs = weights(one), weights(tmp_path / "two")
    for name, values in ours.items():
        assert torch.allclose(values, theirs[name], rtol=1e-3, atol=1e-4), name


@pytest.mark.slow
def test_a_launcher_that_starts_fewer_processes_than_asked_is_refused(
    recipe: Recipe, clip_distill: Command, tmp_path: Path
) -> None:
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")
    result = clip_distill("train", recipe("few"), launcher=launcher)
    assert result.returncode != 0
    assert "started one process only" in result.stderr
    assert "distill/" not in result.stderr.split("started one process only")[0]
    assert not (tmp_path / "few").exists()


@pytest.mark.slow
def test_several_processes_tell_a_mistake_once(
    recipe: Recipe, clip_distill: Command, tmp_path: Path
) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    path = recipe("wrong", train={"batch_size": 4000})
    result = clip_distill("train", path, launcher=launcher)
    assert result.returncode == 1
    assert result.stderr.count("train.batch_size: 4000") == 1
    assert not (tmp_path / "wrong").exists()
