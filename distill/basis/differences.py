"""Where two nested values differ, such as the settings of two runs."""

from collections.abc import Iterator
from typing import Any


def differences(was: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield ``(path, old value, new value)`` for each place where two nested values differ.

    Mappings are compared key by key, and a missing key counts as None. Lists of the same length
    are compared entry by entry, and a tuple equals the list that JSON turns it into. A path joins
    keys and positions with dots, as in ``train.data.1.path``. If the only entry of a list is a
    mapping, the path leaves out its position, because a recipe writes such an entry without a list.
    """
    if isinstance(was, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*was, *now]):
            yield from differences(was.get(key), now.get(key), _joined(path, key))
    elif _are_lists(was, now) and len(was) == len(now):
        alone = len(was) == 1 and isinstance(was[0], dict)
        for position, (old, new) in enumerate(zip(was, now, strict=True)):
            yield from differences(old, new, path if alone else _joined(path, position))
    elif was != now:
        yield path, was, now


def _are_lists(*values: Any) -> bool:
    return all(isinstance(value, list | tuple) for value in values)


def _joined(path: str, part: object) -> str:
    return f"{path}.{part}" if path else str(part)
