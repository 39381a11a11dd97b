import io

import pytest
from rich.console import Console

from distill.basis import progress
from distill.basis.progress import is_main_process, make_console, progress_bar


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list whose only entry is the time."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], seconds: list[float]
) -> None:
    with progress_bar("reading", 100) as bar:
        for done in (10, 20, 30):
            seconds[0] += 10
            bar.update(done, "loss 0.5")
        bar.update(100)
    # After 20 seconds and at the end; one of 30 would come too early.
    assert capsys.readouterr().err == "reading 20/100 loss 0.5\nreading 100/100\n"


def test_titles_and_notes_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("[bold] :smile:", 1) as bar:
        bar.update(1, "[red] x" + "y" * 200)
    assert capsys.readouterr().err == "[bold] :smile: 1/1 [red] x" + "y" * 200 + "\n"


def test_other_processes_are_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert is_main_process()
    monkeypatch.setenv("RANK", "1")
    assert not is_main_process()
    make_console().print("hello")
    with progress_bar("reading", 1) as bar:
        bar.update(1)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "make_console", lambda: terminal)
    with progress_bar("reading", 4, done=1) as bar:
        bar.update(3, "loss 0.5")
    shown = screen.getvalue()
    assert "reading" in shown
    assert "75%" in shown
    assert "3/4" in shown
    assert "loss 0.5" in shown
