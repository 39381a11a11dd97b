"""`clip-distill shards`: from a path or a recipe to tars, and one line for a mistake."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill.cli import app as cli
from distill.data.guess import guess_source
from distill.data.sample import open_image
from distill.data.shards.source import open_shards
from tests.distill.data.shards.pictures import contents, table
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.run.shards_stage import write_data


def test_from_a_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = table(tmp_path), tmp_path / "out"
    arguments = ["shards", str(data), "--out", str(out), "--per-shard", "4", "--size", "16"]
    arguments += ["--set", "data.workers=0"]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert f"shards: {out} holds 6 samples in 2 shards" in captured.err
    source = open_shards(guess_source(str(out))["path"])
    assert guess_source(str(out))["kind"] == "shards"
    assert [(one.captions, one.label) for one in source] == [
        ((f"a picture of {number}",), f"class {number % 2}") for number in range(6)
    ]
    assert {open_image(one).size for one in source} == {(24, 16)}
    before = contents(out)
    assert cli.main(arguments) == 0
    assert contents(out) == before
    # Shards are a source like any other, so they can be sharded again.
    again = ["shards", str(out), "--out", str(tmp_path / "again"), "--set", "data.workers=0"]
    assert cli.main(again) == 0
    assert len(open_shards(str(tmp_path / "again/000000.tar"))) == 6


def test_from_a_recipe_with_several_sources(tmp_path: Path) -> None:
    data = table(tmp_path)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "teacher: {model: a/b}\ndata:\n  workers: 0\n"
        f"  train: [{{kind: table, path: {data}}}, {{kind: scenes, count: 3}}]\n"
        f"output: {tmp_path / 'run'}\n"
    )
    write_data(str(recipe), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0", "1"]
    scenes = open_shards(str(tmp_path / "out/1"))
    assert len(scenes) == 3
    assert all(one.captions and one.label for one in scenes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["shards", "nothing"], "Missing option '--out'"),
        (["shards", "{missing}", "--out", "{out}"], "found nothing"),
        (["shards", "{missing}.yaml", "--out", "{out}"], "there is no such recipe"),
        (["shards", "{data}", "--out", "{out}", "--size", "4"], "'--size'"),
        (["shards", "{data}", "--out", "{out}", "--per-shard", "0"], "'--per-shard'"),
        (["shards", "{data}", "--out", "{data}"], "it is not a folder"),
        (["shards", "{folder}", "--out", "{folder}"], "the folder is not empty"),
        (["shards", "{data}", "--out", "{out}", "--set", "data.workers=x"], "data.workers"),
    ],
)
def test_one_line_for_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], found: str
) -> None:
    places = {
        "data": table(tmp_path),
        "folder": tmp_path,
        "out": tmp_path / "out",
        "missing": tmp_path / "missing",
    }
    assert cli.main([argument.format(**places) for argument in arguments]) == 2
    err = capsys.readouterr().err
    assert found in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_keeps_whole_shards(tmp_path: Path) -> None:
    data, out = table(tmp_path, 2000), tmp_path / "out"
    command = [sys.executable, "-m", "distill", "shards", str(data), "--out", str(out)]
    command += ["--per-shard", "4"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (out / "000002.tar").exists():
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert "of 500 shards are complete in" in err.splitlines()[-1]
    assert not list(out.glob("*.tmp"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert len(open_shards(str(out))) == 2000
