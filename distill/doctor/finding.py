"""What the doctor says about each thing that it examines."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from export.runtime.errors import ClipDistillError

Level = Literal["fine", "note", "wrong"]
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Finding:
    """One plain sentence about one thing; ``way_out`` says what to do about it.

    What is ``wrong`` would waste the run. A ``note`` is worth knowing, and may be intended.
    """

    about: str
    level: Level
    text: str
    way_out: str = ""


def fine(about: str, text: str) -> Finding:
    """Return the finding that a thing is as it should be."""
    return Finding(about, "fine", text)


def note(about: str, text: str, way_out: str) -> Finding:
    """Return the finding that a thing may not be what the user meant."""
    return Finding(about, "note", text, way_out)


def wrong(about: str, text: str, way_out: str) -> Finding:
    """Return the finding that a thing would waste the run."""
    return Finding(about, "wrong", text, way_out)


def attempt(about: str, action: Callable[[], _Result], findings: list[Finding]) -> _Result | None:
    """Return the result of an action; if it is refused, append the reason and return None."""
    try:
        return action()
    except ClipDistillError as error:
        # The message already says how to fix it.
        findings.append(wrong(about, str(error), ""))
        return None
