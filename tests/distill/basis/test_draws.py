"""Random draws: fixed forever, uniform, and sensitive to every part."""

import hashlib
import subprocess
import sys

import numpy as np

from distill.basis.draws import draw_integers, draw_permutation, draw_uniforms


def test_integers_are_blake2b_of_the_parts() -> None:
    digest = hashlib.blake2b(b"str:view\0int:7\0str:a.jpg", digest_size=16).digest()
    expected = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]
    assert draw_integers("view", 7, "a.jpg", count=2) == expected


def test_another_process_draws_the_same() -> None:
    code = "from distill.basis.draws import *; print(draw_permutation(9, 'order', 3).tolist())"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == str(draw_permutation(9, "order", 3).tolist())


def test_number_and_text_are_different_parts() -> None:
    assert draw_integers("1") != draw_integers(1)
    assert draw_integers("a", "b") != draw_integers("ab")


def test_uniforms_fill_the_unit_interval() -> None:
    values = np.array([draw_uniforms("u", number)[0] for number in range(4000)])
    assert values.min() >= 0.0
    assert values.max() < 1.0
    # The mean of 4,000 uniform numbers has a standard deviation of 0.0046.
    assert abs(values.mean() - 0.5) < 0.02


def test_permutation_holds_every_number_once() -> None:
    order = draw_permutation(1000, "order", 0)
    assert sorted(order.tolist()) == list(range(1000))
    assert not np.array_equal(order, draw_permutation(1000, "order", 1))
