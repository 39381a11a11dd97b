"""Deterministic crops that teacher and student both see."""

import dataclasses
import hashlib
import io
import math
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from distill.data.sample import Sample, open_image
from distill.data.views import View, ViewSettings, draw_view, render_view
from distill.recipe.load import resolve
from distill.recipe.views import ViewsSection
from export.runtime.errors import RecipeError
from export.runtime.preprocess import Preprocessing
from tests.lazy import lazy_imports

with lazy_imports():
    from timm.data import auto_augment

RANDOM = ViewSettings(
    seed=5, kind="random", scale=(0.3, 0.9), ratio=(0.75, 4 / 3), flip=True, color_jitter=0.2
)
CENTRE = ViewSettings(
    seed=5, kind="center", scale=(0.3, 0.9), ratio=(0.75, 4 / 3), flip=True, color_jitter=0.2
)
AUGMENTED = dataclasses.replace(RANDOM, rand_augment="rand-m9-n2-mstd0.5")


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
        "from distill.data.views import *; print(draw_view(ViewSettings(seed=5, kind='random', "
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


def test_half_of_the_views_are_mirrored_with_flip() -> None:
    flips = [draw_view(RANDOM, "key", number, size=(50, 50)).flip for number in range(1000)]
    # 1,000 fair coins have a standard deviation of 16.
    assert abs(sum(flips) - 500) < 80


def test_the_centre_view_is_the_preprocessing_of_evaluation(picture: Image.Image) -> None:
    view = draw_view(CENTRE, "key", 7, size=picture.size)
    assert np.array_equal(render_view(picture, view, look(64)), look(64).pixels(picture))


def test_only_what_matters_is_part_of_a_fingerprint() -> None:
    assert CENTRE.to_dict() == {"kind": "center"}
    assert RANDOM.to_dict()["scale"] == [0.3, 0.9]
    assert "rand_augment" not in RANDOM.to_dict()
    assert AUGMENTED.to_dict()["rand_augment"] == "rand-m9-n2-mstd0.5"


def test_teacher_and_student_are_shown_the_same_crop_flip_and_colours(
    picture: Image.Image,
) -> None:
    for number in range(20):
        view = draw_view(RANDOM, "key", number, size=picture.size)
        assert view.box is not None
        for side in (64, 48):
            expected = picture.resize((side, side), Image.Resampling.BICUBIC, box=view.box)
            if view.flip:
                expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            expected = _changed(expected, Image.new("RGB", expected.size), view.brightness)
            level = int(np.asarray(expected.convert("L"), np.float64).mean() + 0.5)
            grey = Image.new("RGB", expected.size, (level, level, level))
            expected = _changed(expected, grey, view.contrast)
            expected = _changed(expected, expected.convert("L").convert("RGB"), view.saturation)
            found = render_view(picture, view, look(side)).astype(int)
            assert np.abs(found - np.asarray(expected, int)).max() <= 1


def _changed(image: Image.Image, neutral: Image.Image, factor: float) -> Image.Image:
    """Move an image away from a neutral one by a factor, in NumPy."""
    start, end = np.asarray(neutral, np.float64), np.asarray(image, np.float64)
    values = np.clip(start + factor * (end - start), 0, 255)
    return Image.fromarray(values.astype(np.uint8))


def test_rand_augment_is_timms_seeded_by_the_view(
    picture: Image.Image,
) -> None:
    changed = 0
    for number in range(12):
        view = draw_view(AUGMENTED, "key", number, size=picture.size)
        plain = dataclasses.replace(view, rand_augment=None)
        assert view.rand_augment is not None
        assert plain == draw_view(RANDOM, "key", number, size=picture.size)
        for side in (64, 48):
            start = render_view(picture, plain, look(side))
            random.seed(view.rand_augment[1])
            legacy = np.random.RandomState(np.random.Philox(key=view.rand_augment[1]))
            transform = auto_augment.rand_augment_transform("rand-m9-n2-mstd0.5")
            expected = Image.fromarray(start)
            for operation in legacy.choice(transform.ops, 2):
                expected = operation(expected)
            found = render_view(picture, view, look(side))
            assert np.array_equal(found, np.asarray(expected))
            changed += not np.array_equal(found, start)
    assert changed > 12


def test_rand_augment_does_the_same_with_the_same_magnitudes_at_both_sizes(
    picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[Any, ...]] = []

    def recorded(name: str, function: Any) -> Any:
        def call(image: Image.Image, *levels: float, **options: Any) -> Image.Image:
            done.append((name, levels))
            result: Image.Image = function(image, *levels, **options)
            return result

        return call

    for name, function in auto_augment.NAME_TO_OP.items():
        monkeypatch.setitem(auto_augment.NAME_TO_OP, name, recorded(name, function))
    # A configuration used nowhere else: its transform is built from the recorded functions.
    settings = dataclasses.replace(RANDOM, rand_augment="rand-m7-n3-mstd1.5-p0.9")
    at_size: dict[int, list[tuple[Any, ...]]] = {}
    for side in (64, 48):
        done.clear()
        for number in range(20):
            view = draw_view(settings, "key", number, size=picture.size)
            render_view(picture, view, look(side))
        at_size[side] = list(done)
    assert at_size[64] == at_size[48]
    assert len({name for name, _ in done}) > 8
    assert len({levels for _, levels in done}) > 20


def test_rand_augment_neither_follows_nor_moves_the_global_generators(
    picture: Image.Image,
) -> None:
    view = draw_view(AUGMENTED, "key", 1, size=picture.size)
    first = render_view(picture, view, look(64))
    random.seed(1)
    np.random.default_rng(0)
    legacy = np.random.mtrand.get_bit_generator()
    before = random.getstate(), str(legacy.state)
    assert np.array_equal(render_view(picture, view, look(64)), first)
    assert np.random.mtrand.get_bit_generator() is legacy
    assert (random.getstate(), str(legacy.state)) == before


@pytest.mark.slow
def test_another_process_renders_the_same_pixels(picture: Image.Image) -> None:
    code = (
        "import hashlib, sys, numpy as np; from PIL import Image; "
        "from distill.data.views import *; "
        "from export.runtime.preprocess import Preprocessing; "
        "pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8); "
        "picture = Image.fromarray(pixels).resize((260, 180), Image.Resampling.BICUBIC); "
        "look = Preprocessing(size=(64, 64), resize='shortest', resize_to=64, crop=True, "
        "crop_offset='floor', resample='bicubic', mean=(0.5,) * 3, std=(0.5,) * 3); "
        "settings = ViewSettings(seed=5, kind='random', scale=(0.3, 0.9), ratio=(0.75, 4 / 3), "
        "flip=True, color_jitter=0.2, rand_augment='rand-m9-n2-mstd0.5'); "
        "views = [draw_view(settings, 'key', n, size=picture.size) for n in range(8)]; "
        "data = b''.join(render_view(picture, view, look).tobytes() for view in views); "
        "print(hashlib.sha256(data).hexdigest())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    views = [draw_view(AUGMENTED, "key", number, size=picture.size) for number in range(8)]
    data = b"".join(render_view(picture, view, look(64)).tobytes() for view in views)
    assert printed.stdout.strip() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "text", ["rand", "rand-m9-n2-mstd0.5", "rand-m15-mmax30-inc1", "rand-tweights-p0.7", "rand-t3a"]
)
def test_configurations_that_timm_knows_are_accepted(text: str) -> None:
    assert ViewsSection(rand_augment=text).rand_augment == text
    auto_augment.rand_augment_transform(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "randm9",
        "augmix-m3",
        "rand-m",
        "rand-m9-m5",
        "rand-x3",
        "rand-n0",
        "rand-mstd",
        "Rand-m9",
    ],
)
def test_any_other_configuration_is_refused_in_one_line(text: str) -> None:
    values = {"data": {"train": {"kind": "table", "path": "t.csv"}}}
    with pytest.raises(RecipeError, match=r"views\.rand_augment: found .*rand-m9-n2-mstd0\.5") as e:
        resolve({**values, "views": {"rand_augment": text}}, where="test")
    assert "\n" not in str(e.value)


def test_centre_crops_refuse_rand_augment() -> None:
    values = {"data": {"train": {"kind": "table", "path": "t.csv"}}}
    views = {"kind": "center", "rand_augment": "rand-m9"}
    with pytest.raises(RecipeError, match=r"views\.rand_augment: only views\.kind: random uses it"):
        resolve({**values, "views": views}, where="test")


# --- draft


def jpeg(*size: int) -> Sample:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "JPEG", quality=95)
    return Sample("a.jpg", file.getvalue(), (), None)


def test_draft_is_part_of_the_fingerprint() -> None:
    for settings in (RANDOM, CENTRE):
        drafted = dataclasses.replace(settings, draft=64)
        assert drafted.to_dict() == {**settings.to_dict(), "draft": 64}
        assert "draft" not in settings.to_dict()


def test_draft_leaves_the_smallest_crop_the_pixels_that_models_see() -> None:
    # The smallest crop has 0.3 of the area, at a ratio of 3 to 4.
    assert RANDOM.draft_for([look(32), look(48)]) == math.ceil(48 / math.sqrt(0.3 * 0.75))
    assert CENTRE.draft_for([look(32), look(48)]) == 48


def test_draft_decodes_a_jpeg_smaller_and_shows_nearly_the_same() -> None:
    sample = jpeg(400, 320)
    whole = open_image(sample)
    assert whole.size == (400, 320)
    for draft, size in ((300, (400, 320)), (160, (200, 160)), (100, (200, 160)), (30, (50, 40))):
        small = open_image(sample, draft=draft)
        assert small.size == size
        looks = [look(24).pixels(image).astype(int) for image in (whole, small)]
        assert np.abs(looks[0] - looks[1]).max() <= 6
