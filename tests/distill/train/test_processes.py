"""The number of processes, devices and precisions are checked."""

import pytest

from export.runtime.errors import RunError
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.train.processes import check_processes, start_accelerator


def test_one_process_without_a_launcher_is_fine() -> None:
    check_processes(1, {})


def test_as_many_processes_as_the_launcher_asked_for_are_fine() -> None:
    check_processes(4, {"WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1"})


def test_another_world_size_is_refused() -> None:
    with pytest.raises(RunError, match=r"WORLD_SIZE is 2, but Accelerate runs 1 .*torchrun"):
        check_processes(1, {"WORLD_SIZE": "2"})


def test_a_launcher_that_silently_starts_one_process_is_refused() -> None:
    with pytest.raises(RunError, match=r"MASTER_ADDR .* --multi_gpu --num_processes 2"):
        check_processes(1, {"MASTER_ADDR": "127.0.0.1"})


def test_half_precision_without_a_gpu_names_the_field() -> None:
    with pytest.raises(RunError, match=r"train\.precision: fp16"):
        start_accelerator(device="cpu", precision="fp16")
