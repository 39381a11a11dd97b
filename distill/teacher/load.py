"""Loading the teachers that a recipe names."""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Protocol

from distill.teacher.ensemble import Ensemble
from distill.teacher.protocol import Teacher
from export.runtime.errors import TeacherError

# Fields of a teacher in error messages, which get the teacher's number if there are several.
_FIELD = re.compile(r"\bteacher\.(?=(?:model|pretrained|weights|quick_gelu)\b)")


class _Row(Protocol):
    """A recipe's row for one teacher."""

    loader: ClassVar[str]
    """The function that loads it, as ``module:function``."""

    @property
    def model(self) -> str:
        """The name or path of the model."""
        ...

    @property
    def weight(self) -> float:
        """Its weight among the teachers."""
        ...

    def arguments(self) -> Mapping[str, Any]:
        """Return the arguments of the loader, except the device."""
        ...


def load_teachers(rows: Sequence[_Row], *, device: str) -> Ensemble:
    """Load the teachers of a recipe as one.

    Args:
        rows: The recipe's row for each teacher; at least one.
        device: The device that they run on.

    Raises:
        TeacherError: A teacher cannot be loaded, or two are the same; one line, which numbers
            teachers by their place in the recipe.
    """
    members: list[Teacher] = []
    for number, row in enumerate(rows):
        try:
            member = load_teacher(row, device=device)
        except TeacherError as error:
            if len(rows) == 1:
                raise
            raise TeacherError(_FIELD.sub(f"teacher.{number}.", str(error))) from error
        same = [place for place, one in enumerate(members) if one.fingerprint == member.fingerprint]
        if same:
            raise TeacherError(
                f"teacher.{number}.model: {row.model} is the same as teacher.{same[0]}; name it "
                "once, with a larger weight if it should count for more"
            )
        members.append(member)
    return Ensemble(members, [row.weight for row in rows])


def load_teacher(row: _Row, *, device: str = "cpu") -> Teacher:
    """Load one teacher.

    Args:
        row: The recipe's row for the teacher.
        device: The device that it runs on.

    Raises:
        TeacherError: It cannot be loaded; one line.
    """
    module, _, function = row.loader.partition(":")
    loader: Callable[..., Teacher] = getattr(import_module(module), function)
    return loader(**row.arguments(), device=device)
