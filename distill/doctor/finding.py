"""What the doctor says of one thing that it looked at."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from export.runtime.errors import ClipDistillError

Level = Literal["fine", "note", "wrong"]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Finding:
    """One plain sentence on one thing; where it is ``wrong``, ``way_out`` says how to mend it.

    A ``note`` is worth knowing, and may be as it should be.
    """

    about: str
    level: Level
    text: str
    way_out: str = ""


def fine(about: str, text: str) -> Finding:
    """Return that a thing is as it should be."""
    return Finding(about, "fine", text)


def note(about: str, text: str, way_out: str) -> Finding:
    """Return that a thing may be not what was meant."""
    return Finding(about, "note", text, way_out)


def wrong(about: str, text: str, way_out: str) -> Finding:
    """Return that a thing would waste the run."""
    return Finding(about, "wrong", text, way_out)


def attempt(about: str, action: Callable[[], Result], findings: list[Finding]) -> Result | None:
    """Return what an action gives; where it is refused, add why to the findings and give None."""
    try:
        return action()
    except ClipDistillError as error:
        # Its message is finished, way out and all.
        findings.append(wrong(about, str(error), ""))
        return None
