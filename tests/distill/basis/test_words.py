import pytest

from distill.basis.words import counted, human_bytes, human_time, shorten


def test_numbers_are_for_people() -> None:
    counts = [(1, "epoch"), (1.0, "epoch"), (0.5, "epoch"), (12.345, "epoch"), (12345, "view")]
    assert [counted(*count) for count in counts] == [
        "1 epoch",
        "1 epoch",
        "0.5 epochs",
        "12.3 epochs",
        "12,345 views",
    ]
    assert [human_bytes(count) for count in (999, 1500, 2.5e9, 3e12)] == [
        "999 B",
        "1.5 kB",
        "2.5 GB",
        "3.0 TB",
    ]
    assert [human_time(count) for count in (0.31, 42.4, 125, 7260)] == [
        "0.3 s",
        "42 s",
        "2 min 5 s",
        "2 h 1 min",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", "'a cat'"),
        ("two\nlines", r"'two\nlines'"),
        ("x" * 10, repr("x" * 10)),
        ("x" * 11, repr("x" * 9 + "…")),
    ],
)
def test_a_long_text_is_cut(text: str, expected: str) -> None:
    assert shorten(text, limit=10) == expected
