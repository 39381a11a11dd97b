"""The log of a run: its speed, and lines that were cut off."""

import json
from pathlib import Path

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    from accelerate import Accelerator

    from distill.train import run_log
    from distill.train.run_log import RunLog, drop_lines_after, flatten
    from distill.train.step import StepResult


def test_validating_and_saving_do_not_count_in_the_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(run_log.time, "perf_counter", lambda: now[0])
    log = RunLog(tmp_path, Accelerator(cpu=True), step=0)

    def batches():
        for number in range(10):
            now[0] += 0.5
            yield number

    for number in log.fetch(batches()):
        now[0] += 1.5
        if number % 4 == 3:
            with log.aside():
                now[0] += 100.0
    result = StepResult(loss=1.0, terms={}, cosines={}, gradient_norm=1.0, logit_scale=10.0)
    line = log.training(10, result, batch_size=8, learning_rates={"rest": 0.1})
    # Ten steps of two seconds each, a quarter of them spent waiting.
    assert line["samples_per_second"] == pytest.approx(10 * 8 / 20)
    assert line["data_wait_share"] == pytest.approx(0.25)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == line


def test_lines_of_later_steps_and_incomplete_lines_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 3, "validat')
    drop_lines_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_nested_numbers_are_named_by_path() -> None:
    values = {"loss": 1.0, "terms": {"a": 2.0, "b": {"c": 3}}, "list": [1, 2], "none": None}
    assert flatten(values) == {"loss": 1.0, "terms/a": 2.0, "terms/b/c": 3, "list": "[1, 2]"}
