"""Check values of a JSON file strictly. Each function takes a value and the field it is in."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from .errors import BundleError


def mapping(
    value: Any, where: str, *, required: Collection[str], optional: Collection[str] = ()
) -> dict[str, Any]:
    """Return an object that has all required keys and no unknown ones.

    Raises:
        BundleError: The value is not an object, or its keys differ.
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
    """Return a whole number of at least ``minimum``.

    Raises:
        BundleError: The value is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise BundleError(
            f"{where}: expected a whole number of at least {minimum}, found {_show(value)}"
        )
    return value


def number(value: Any, where: str, *, positive: bool = False) -> float:
    """Return a finite number, which must be above 0 if ``positive``.

    Raises:
        BundleError: The value is anything else.
    """
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or (positive and value <= 0):
        kind = "a number above 0" if positive else "a number"
        raise BundleError(f"{where}: expected {kind}, found {_show(value)}")
    return float(value)


def flag(value: Any, where: str) -> bool:
    """Return true or false.

    Raises:
        BundleError: The value is anything else.
    """
    if not isinstance(value, bool):
        raise BundleError(f"{where}: expected true or false, found {_show(value)}")
    return value


def text(value: Any, where: str) -> str:
    """Return a string that is not empty.

    Raises:
        BundleError: The value is anything else.
    """
    if not isinstance(value, str) or not value:
        raise BundleError(f"{where}: expected a text, found {_show(value)}")
    return value


def choice(value: Any, where: str, *, allowed: Collection[str]) -> str:
    """Return one of the allowed words.

    Raises:
        BundleError: The value is anything else.
    """
    if not isinstance(value, str) or value not in allowed:
        raise BundleError(f"{where}: expected {' or '.join(allowed)}, found {_show(value)}")
    return value


def sequence(value: Any, where: str, *, length: int | None = None) -> list[Any]:
    """Return a list, of exactly ``length`` entries if that is given.

    Raises:
        BundleError: The value is anything else.
    """
    if not isinstance(value, list | tuple) or (length is not None and len(value) != length):
        kind = "a list" if length is None else f"a list of {length}"
        raise BundleError(f"{where}: expected {kind}, found {_show(value)}")
    return list(value)


def _show(value: Any) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
