"""The command line as a whole: help, and one line for every mistake."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill.cli import _errors
from distill.cli.app import main
from export.runtime.errors import CacheError
from tests.distill.cli.pieces import Pipeline, answer

ROOT = Path(__file__).parents[3]
COMMANDS = [
    "run",
    "recipe",
    "cache",
    "train",
    "doctor",
    "eval",
    "export",
    "shards",
    "classify",
    "embed",
    "demo",
]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    from distill import __version__

    assert answer(capsys, "--version") == (0, f"clip-distill {__version__}\n", "")
    for arguments in ((), ("--help",), ("-h",)):
        status, out, err = answer(capsys, *arguments)
        assert (status, err) == (0, "")
        for command in COMMANDS:
            assert f" {command} " in out
    assert "--labels" in answer(capsys, "classify", "--help")[1]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_into_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    status, out, err = answer(capsys, *command.split(), "--help")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 60
    # Nothing is cut off.
    assert "…" not in out.replace("NAME:TYPE:N,…", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("trian",), "clip-distill: No such command 'trian'"),
        (("train",), "clip-distill train: Missing argument 'RECIPE'"),
        (("train", "r.yaml", "--fast"), "clip-distill train: No such option: --fast"),
        (
            ("eval", "runs/a", "--checkpoint", "first"),
            "'--checkpoint': 'first' is not one of 'last', 'best'",
        ),
        (("run",), "run: give a RECIPE, or --data with the pictures to learn from"),
        (
            ("run", "r.yaml", "--data", "x"),
            "r.yaml: given together with --teacher, --student, --data",
        ),
        (("run", "--data", "none"), "none: "),
        (("run", "none.yaml"), "none.yaml: there is no such recipe"),
        (("train", "none.yaml"), "none.yaml: there is no such recipe"),
        (("recipe", "--teacher", "tf:x"), "--teacher tf:x: found the kind 'tf', must be one of"),
        (("classify", "b", "p.jpg", "--labels", " , "), "--labels  , : it has no label"),
        (("classify", "b", "p.jpg"), "b: no such folder"),
        (("embed", "b", "p.jpg", "--out", "f.txt"), "--out f.txt: found the ending '.txt'"),
        (("embed", "b", "p.jpg", "--out", "none/f.npy"), "--out none/f.npy: there is no folder"),
        (("embed", "b", "none", "--out", "f.npy"), "none: there is no such file or folder"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    pipeline: Pipeline,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = answer(capsys, *arguments)
    assert (status, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1
    assert pipeline.asked == []
    assert list(tmp_path.iterdir()) == []


def test_each_mistake_of_a_recipe_has_its_line(
    pipeline: Pipeline, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text("teacher: {model: a}\ntrain: {batch_size: -3, lr: 1}\n")
    status, _, err = answer(capsys, "train", recipe)
    assert status == 2
    first, second = err.splitlines()
    assert first == f"{recipe}: train.batch_size: found -3, must be ≥ 1"
    assert second.startswith(f"{recipe}: train.lr: unknown key; allowed are teacher, batch_size")


def fails_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setitem(sys.modules, "distill.run.pipeline", Pipeline(error))


def test_our_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(monkeypatch, CacheError("the cache: is of another teacher"))
    assert answer(capsys, "train", recipe) == (2, "", "the cache: is of another teacher\n")


def test_another_process_waits_for_the_main_one_to_speak_first(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(monkeypatch, CacheError("once"))
    waited: list[float] = []
    monkeypatch.setattr(_errors.time, "sleep", waited.append)
    assert answer(capsys, "train", recipe) == (2, "", "once\n")
    assert waited == []
    monkeypatch.setenv("RANK", "1")
    # A launcher ends it while it waits; if it failed alone, it prints the line itself.
    assert answer(capsys, "train", recipe) == (2, "", "once\n")
    assert waited == [_errors.SECONDS_FOR_THE_MAIN_PROCESS]


def test_only_the_main_process_says_that_it_was_stopped(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(monkeypatch, KeyboardInterrupt("saved"))
    assert answer(capsys, "train", recipe) == (130, "", "saved\n")
    monkeypatch.setenv("RANK", "1")
    assert answer(capsys, "train", recipe) == (130, "", "")


def test_a_full_disk_is_one_line_and_a_bug_is_a_traceback(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(monkeypatch, OSError(28, "No space left on device", "runs/x/state.json"))
    status, _, err = answer(capsys, "train", recipe)
    assert status == 2
    assert err.startswith("runs/x/state.json: No space left on device")
    fails_with(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        main(["train", str(recipe)])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("stopped at step 3 of 9, saved in runs/x", "stopped at step 3 of 9, saved in runs/x\n"),
        ("", f"{_errors.STOPPED}\n"),
    ],
)
def test_ctrl_c_is_one_line_and_status_130(
    monkeypatch: pytest.MonkeyPatch,
    recipe: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    line: str,
) -> None:
    fails_with(monkeypatch, KeyboardInterrupt(*([text] if text else [])))
    assert answer(capsys, "train", recipe) == (130, "", line)


@pytest.mark.slow
def test_ctrl_c_from_a_terminal(tmp_path: Path) -> None:
    script = (
        "import sys, time, types\n"
        "pipeline = types.ModuleType('distill.run.pipeline')\n"
        "def train(config):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "pipeline.train = train\n"
        "sys.modules['distill.run.pipeline'] = pipeline\n"
        "from distill.cli.app import main\n"
        "sys.exit(main(['train', 'r.yaml']))\n"
    )
    (tmp_path / "r.yaml").write_text("teacher: {model: a/b}\n")
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == f"{_errors.STOPPED}\n"


@pytest.mark.parametrize("command", ["run", "recipe", "cache", "train", "eval", "export", "demo"])
def test_a_missing_extra_is_named(tmp_path: Path, command: str) -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'yaml', 'transformers'):\n"
        "    sys.modules[name] = None\n"
        "from distill.cli.app import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = {"recipe": (), "demo": (), "run": ("--data", "x")}.get(command, ("x",))
    done = subprocess.run(
        [sys.executable, "-c", script, command, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"clip-distill {command} needs ")
    assert done.stderr.endswith("pip install 'clip-distill[train]'\n")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
