"""Reading fields of JSON strictly: each function checks one value and says where it stands."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from .errors import BundleError


def mapping(
    value: Any, where: str, *, required: Collection[str], optional: Collection[str] = ()
) -> dict[str, Any]:
    """Give an object whose keys are all known, none missing.

    Raises:
        BundleError: It is no object, or its keys are others.
    """
    if not isinstance(value, Mapping):
        raise BundleError(f"{where}: expected an object, found {_show(value)}")
    unknown = sorted(str(key) for key in value if key not in {*required, *optional})
    missing = [key for key in required if key not in value]
    if unknown or missing:
        found = [f"{key!r} is unknown" for key in unknown] + [
            f"{key!r} is missing" for key in missing
        ]
        allowed = ", ".join([*required, *optional])
        raise BundleError(f"{where}: {', '.join(found)}; the keys are {allowed}")
    return dict(value)


def integer(value: Any, where: str, *, minimum: int = 0) -> int:
    """Give a whole number of at least ``minimum``.

    Raises:
        BundleError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise BundleError(
            f"{where}: expected a whole number of at least {minimum}, found {_show(value)}"
        )
    return value


def number(value: Any, where: str, *, positive: bool = False) -> float:
    """Give a finite number, above 0 where ``positive``.

    Raises:
        BundleError: It is something else.
    """
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or (positive and value <= 0):
        kind = "a number above 0" if positive else "a number"
        raise BundleError(f"{where}: expected {kind}, found {_show(value)}")
    return float(value)


def flag(value: Any, where: str) -> bool:
    """Give true or false.

    Raises:
        BundleError: It is something else.
    """
    if not isinstance(value, bool):
        raise BundleError(f"{where}: expected true or false, found {_show(value)}")
    return value


def text(value: Any, where: str) -> str:
    """Give a string that is not empty.

    Raises:
        BundleError: It is something else.
    """
    if not isinstance(value, str) or not value:
        raise BundleError(f"{where}: expected a text, found {_show(value)}")
    return value


def choice(value: Any, where: str, *, allowed: Collection[str]) -> str:
    """Give one of the allowed words.

    Raises:
        BundleError: It is something else.
    """
    if not isinstance(value, str) or value not in allowed:
        raise BundleError(f"{where}: expected {' or '.join(allowed)}, found {_show(value)}")
    return value


def sequence(value: Any, where: str, *, length: int | None = None) -> list[Any]:
    """Give a list, of ``length`` entries where that is said.

    Raises:
        BundleError: It is something else.
    """
    if not isinstance(value, list | tuple) or (length is not None and len(value) != length):
        kind = "a list" if length is None else f"a list of {length}"
        raise BundleError(f"{where}: expected {kind}, found {_show(value)}")
    return list(value)


def _show(value: Any) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
