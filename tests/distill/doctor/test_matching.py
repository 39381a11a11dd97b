"""Whether a teacher knows its pairs, on embeddings made by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from distill.doctor.finding import Finding
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.doctor._matching import examine_pairs, match


def levels(findings: Sequence[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def units(seed: int, count: int, width: int = 16) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = np.random.default_rng(seed).normal(size=(count, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def test_matching_of_a_matrix_made_by_hand() -> None:
    text = np.eye(4, dtype=np.float32)
    image = np.array(
        # The true caption is first, first, second, and tied with another for first.
        [[0.9, 0.1, 0, 0], [0, 0.8, 0.2, 0], [0.5, 0, 0.4, 0.3], [0, 0, 0.6, 0.6]],
        np.float32,
    )
    found = match(image, text, np.arange(4))
    assert found.accuracy == 0.5
    assert found.chance == 0.25
    assert found.place == pytest.approx((0 + 0 + 1 / 3 + 0.5 / 3) / 4)


def test_all_captions_of_a_group_are_true_partners() -> None:
    text = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    image = np.eye(3, dtype=np.float32)[[0, 0, 1, 1]]
    found = match(image, text, np.array([0, 0, 1, 2]))
    assert found.accuracy == 0.75
    assert found.chance == pytest.approx((0.5 + 0.5 + 0.25 + 0.25) / 4)


def pairs_of(image: Any, text: Any) -> Finding:
    numbers = range(len(image))
    (finding,) = examine_pairs("matching", image, text, list(numbers), list(numbers))
    return finding


@pytest.mark.parametrize("count", [8, 16, 64])
def test_a_teacher_that_knows_its_pairs_is_fine(count: int) -> None:
    text = units(0, count)
    image = text + 0.4 * units(1, count)
    assert pairs_of(image, text).level == "fine"


def test_shuffled_captions_are_found_out() -> None:
    # Two standard deviations let about one of forty orders pass.
    text = units(0, 64)
    found = [pairs_of(text, text[np.random.default_rng(n).permutation(64)]) for n in range(40)]
    assert sum(one.level == "wrong" for one in found) >= 36
    assert pairs_of(units(5, 64), text).level == "wrong"


def test_a_teacher_that_is_worse_than_chance() -> None:
    text = units(0, 64)
    finding = pairs_of(-text, text)
    assert finding.level == "wrong"
    assert "0.0% of 64 pairs, against 1.6% by chance" in finding.text


def test_a_collapsed_teacher_does_not_pass_for_one_that_matches() -> None:
    same = np.repeat(units(0, 1), 64, axis=0)
    assert pairs_of(same, same).level == "wrong"


def test_pairs_that_are_all_the_same_cannot_be_matched() -> None:
    vectors = units(0, 12)
    findings = examine_pairs("matching", vectors, vectors, list(range(12)), [7] * 12)
    assert levels(findings) == ["fine"]


def test_two_classes_prove_nothing_against_a_teacher() -> None:
    # 18 of 24 right, 12 by chance.
    classes = np.eye(2, dtype=np.float32)
    text = classes[[0, 1] * 12]
    image = classes[[0, 1] * 9 + [1, 0] * 3]
    findings = examine_pairs("matching", image, text, list(range(24)), [0, 1] * 12)
    assert levels(findings) == ["fine"]
