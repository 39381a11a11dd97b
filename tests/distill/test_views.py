"""One deterministic crop, which teacher and student are both shown."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from distill.views import View, ViewSettings, draw_view, render_view
from export.runtime.preprocess import Preprocessing

RANDOM = ViewSettings(
    seed=5, kind="random", scale=(0.3, 0.9), ratio=(0.75, 4 / 3), flip=True, color_jitter=0.2
)
CENTRE = ViewSettings(
    seed=5, kind="center", scale=(0.3, 0.9), ratio=(0.75, 4 / 3), flip=True, color_jitter=0.2
)


def look(side: int) -> Preprocessing:
    return Preprocessing(
        size=(side, side),
        resize="shortest",
        resize_to=side,
        crop=True,
        crop_offset="floor",
        resample="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((260, 180), Image.Resampling.BICUBIC)


def test_a_view_is_a_pure_function_of_seed_key_and_number() -> None:
    first = draw_view(RANDOM, "a.jpg", 1, size=(260, 180))
    assert draw_view(RANDOM, "a.jpg", 1, size=(260, 180)) == first
    assert draw_view(RANDOM, "a.jpg", 2, size=(260, 180)) != first
    assert draw_view(RANDOM, "b.jpg", 1, size=(260, 180)) != first


def test_another_process_draws_the_same_view() -> None:
    code = (
        "from distill.views import *; print(draw_view(ViewSettings(seed=5, kind='random', "
        "scale=(0.3, 0.9), ratio=(0.75, 4 / 3), flip=True, color_jitter=0.2), 'a.jpg', 1, "
        "size=(260, 180)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == str(draw_view(RANDOM, "a.jpg", 1, size=(260, 180)))


def test_boxes_lie_within_the_picture_and_keep_area_and_ratio() -> None:
    for number in range(500):
        view = draw_view(RANDOM, "key", number, size=(260, 180))
        assert view.box is not None
        left, top, right, bottom = view.box
        assert 0 <= left < right <= 260
        assert 0 <= top < bottom <= 180
        width, height = right - left, bottom - top
        # Rounding a side to whole pixels moves area and ratio by about one in a hundred.
        assert 0.29 <= width * height / (260 * 180) <= 0.91
        assert 0.73 <= width / height <= 1.36


def test_an_extreme_picture_gets_the_largest_box_that_fits() -> None:
    assert draw_view(RANDOM, "key", 0, size=(1000, 10)).box is not None
    assert draw_view(RANDOM, "key", 0, size=(1, 1)).box == (0, 0, 1, 1)


def test_teacher_and_student_see_the_same_pixels_at_their_own_sizes(picture: Image.Image) -> None:
    view = draw_view(RANDOM, "key", 3, size=picture.size)
    assert view.box is not None
    for side in (64, 48):
        expected = picture.resize((side, side), Image.Resampling.BICUBIC, box=view.box)
        plain = render_view(picture, View(view.box), look(side))
        assert np.array_equal(plain, np.asarray(expected))
        mirrored = render_view(picture, View(view.box, flip=True), look(side))
        assert np.array_equal(mirrored, np.asarray(ImageOps.mirror(expected)))


def test_half_of_the_views_are_mirrored_where_flip_is_on() -> None:
    flips = [draw_view(RANDOM, "key", number, size=(50, 50)).flip for number in range(1000)]
    # 1,000 fair coins have a standard deviation of 16.
    assert abs(sum(flips) - 500) < 80


def test_the_centre_view_is_evaluations_preprocessing(picture: Image.Image) -> None:
    view = draw_view(CENTRE, "key", 7, size=picture.size)
    assert np.array_equal(render_view(picture, view, look(64)), look(64).pixels(picture))


def test_only_what_matters_is_part_of_a_fingerprint() -> None:
    assert CENTRE.to_dict() == {"kind": "center"}
    assert RANDOM.to_dict()["scale"] == [0.3, 0.9]
