from typing import Any

import pytest

from distill.basis.differences import differences


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        ({}, {}, []),
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, []),
        (1, 2, [("", 1, 2)]),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, [("b", 2, 3)]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, [("a.b.c", 1, 2)]),
        # A key on one side only.
        ({"a": 1}, {"b": 2}, [("a", 1, None), ("b", None, 2)]),
        ({"a": None}, {}, []),
        ({"a": {"b": 1}}, {}, [("a", {"b": 1}, None)]),
        # Values of different kinds.
        ({"a": {"b": 1}}, {"a": "b"}, [("a", {"b": 1}, "b")]),
        ({"a": [1]}, {"a": 1}, [("a", [1], 1)]),
        # Lists: by position if they are of one length, whole if they are not.
        ({"a": [1, 2, 3]}, {"a": [1, 5, 6]}, [("a.1", 2, 5), ("a.2", 3, 6)]),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, [("a", [1, 2], [1, 2, 3])]),
        ([{"b": 1}, {"b": 2}], [{"b": 1}, {"b": 3}], [("1.b", 2, 3)]),
        # JSON turns tuples into lists.
        ({"a": (1, 2), "b": ()}, {"a": [1, 2], "b": []}, []),
        ({"a": (1, 2)}, {"a": [1, 3]}, [("a.1", 2, 3)]),
        # A single entry has no position if it is a mapping.
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, [("a.b", 1, 2)]),
        ([{"b": 1}], [{"b": 2}], [("b", 1, 2)]),
        ({"a": [{"b": 1}]}, {"a": [7]}, [("a", {"b": 1}, 7)]),
        ({"a": [1]}, {"a": [2]}, [("a.0", 1, 2)]),
    ],
)
def test_each_place_where_two_values_differ(
    was: Any, now: Any, expected: list[tuple[str, Any, Any]]
) -> None:
    assert list(differences(was, now)) == expected
