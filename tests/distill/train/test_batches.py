"""Rows become micro-batches, and patches of pictures are hidden."""

import numpy as np
import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    from distill.losses.weighted import Mask
    from distill.train.batches import cut, hide_patches


@pytest.mark.parametrize("most", [None, 1, 2, 3, 5, 7, 16, 40])
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 17])
def test_micro_batches_are_few_and_equal(rows: int, most: int | None) -> None:
    parts = cut(rows, most)
    assert [row for part in parts for row in range(rows)[part]] == list(range(rows))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1
    limit = rows if most is None else most
    assert max(sizes) <= limit
    assert (len(parts) - 1) * limit < rows


def test_the_asked_share_of_whole_patches_is_hidden() -> None:
    hidden = hide_patches(Mask(ratio=0.5, patch=8), (32, 48), draw=("mask", 0, "a", 0))
    assert hidden.shape == (32, 48)
    patches = hidden.reshape(4, 8, 6, 8).transpose(0, 2, 1, 3).reshape(24, 64)
    assert np.array_equal(patches.all(axis=1), patches.any(axis=1))
    assert patches.all(axis=1).sum() == 12


def test_a_patch_at_the_edge_may_be_cut() -> None:
    hidden = hide_patches(Mask(ratio=1.0, patch=16), (20, 30), draw=("mask", 0, "a", 0))
    assert hidden.shape == (20, 30)
    assert hidden.all()


def test_the_mask_is_a_function_of_the_draw() -> None:
    mask = Mask(ratio=0.25, patch=4)
    first = hide_patches(mask, (32, 32), draw=("mask", 0, "a", 0))
    assert np.array_equal(first, hide_patches(mask, (32, 32), draw=("mask", 0, "a", 0)))
    others = [("mask", 1, "a", 0), ("mask", 0, "b", 0), ("mask", 0, "a", 1)]
    for draw in others:
        assert not np.array_equal(first, hide_patches(mask, (32, 32), draw=draw)), draw
