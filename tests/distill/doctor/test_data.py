"""What the doctor finds in pictures, captions and classes."""

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from distill.data.scenes import draw_scene
from distill.doctor.finding import Finding
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.doctor.data import (
        examine_captions,
        examine_labels,
        examine_pictures,
        examine_readable,
    )

KEYS = [f"images/{number:04d}.jpg" for number in range(40)]
SPOKEN = [f"a photograph of {number} dogs in the park" for number in range(40)]


def levels(findings: Sequence[Finding]) -> list[str]:
    return [finding.level for finding in findings]


# --- captions


@pytest.mark.parametrize(
    "captions",
    [
        ["a photo"] * 40,
        # One that strays does not make them differ.
        ["none"] * 199 + ["a dog"],
        KEYS,
        [f"{number:04d}.jpg" for number in range(40)],
        [f"{number:04d}" for number in range(40)],
        [f"IMG_{number:04d}.JPG" for number in range(40)],
        [f"IMG_{number:04d}" for number in range(40)],
        [f"COCO_val2014_{number:012d}.jpg" for number in range(40)],
        [f"https://example.com/{number}" for number in range(40)],
        [f"9{number:07d}" for number in range(40)],
    ],
)
def test_captions_that_say_nothing_are_wrong(captions: list[str]) -> None:
    keys = [KEYS[number % 40] for number in range(len(captions))]
    (finding,) = examine_captions("captions", captions, keys)
    assert finding.level == "wrong"
    assert "caption_column" in finding.way_out


@pytest.mark.parametrize(
    "captions",
    [
        SPOKEN,
        [text.upper() for text in SPOKEN],
        [f"红色的狗 {number}" for number in range(40)],
        # Classes repeat.
        [f"a photo of a {name}." for name in ("cat", "dog", "horse", "cow")] * 10,
        [f"a{'b' * number}" for number in range(40)],
        [f"model {number} from 19{number:02d}" for number in range(40)],
    ],
)
def test_captions_that_people_write_are_fine(captions: list[str]) -> None:
    assert levels(examine_captions("captions", captions, KEYS)) == ["fine"]


def test_pictures_may_be_named_after_what_they_show() -> None:
    words = ["bonsai", "red car", "dog", "cat", "tree", "house", "lamp", "chair", "table"]
    keys = [f"pictures/{word}.jpg" for word in words]
    assert levels(examine_captions("captions", words, keys)) == ["fine"]


def test_a_caption_that_most_pictures_have_is_noted() -> None:
    captions = ["None"] * 25 + SPOKEN[:15]
    (finding,) = examine_captions("captions", captions, KEYS)
    assert finding.level == "note"
    assert "25 of 40 are 'None'" in finding.text


def test_a_few_captions_say_nothing_about_all() -> None:
    assert levels(examine_captions("captions", ["a photo"] * 5, KEYS[:5])) == ["fine"]


def test_classes_that_are_codes_are_wrong() -> None:
    (finding,) = examine_labels("classes", ["n01440764", "n01443537", "n01484850"] * 5)
    assert (finding.level, "'n01440764'" in finding.text) == ("wrong", True)
    assert examine_labels("classes", ["tench", "great white shark", "Boeing 747"]) == []
    assert examine_labels("classes", []) == []


# --- pictures


def scenes(count: int = 20) -> list[Image.Image]:
    return [draw_scene(number, seed=0).image for number in range(count)]


def noise(count: int = 20) -> list[Image.Image]:
    draws = np.random.default_rng(0)
    return [
        Image.fromarray(draws.integers(0, 256, (64, 48, 3), dtype=np.uint8)) for _ in range(count)
    ]


def gradients(count: int = 20) -> list[Image.Image]:
    """Return smooth pictures with the faint noise of a sensor."""
    draws = np.random.default_rng(0)
    ramps = [np.linspace(number, 200 - 3 * number, 80)[:, None, None] for number in range(count)]
    values = [ramp + draws.normal(0, 3, (80, 60, 3)) for ramp in ramps]
    return [Image.fromarray(np.clip(value, 0, 255).astype(np.uint8)) for value in values]


@pytest.mark.parametrize(
    ("pictures", "word"),
    [
        ([Image.new("RGB", (32, 32), (9, 9, 9))] * 20, "one colour"),
        ([Image.new("RGB", (32, 32), (n, 2 * n, 0)) for n in range(20)], "one colour"),
        (scenes(1) * 20, "the same picture"),
        (noise(1) * 20, "the same picture"),
        (noise(), "noise"),
    ],
)
def test_pictures_that_show_nothing_are_wrong(pictures: list[Image.Image], word: str) -> None:
    (finding,) = examine_pictures("pictures", pictures)
    assert finding.level == "wrong"
    assert word in finding.text


@pytest.mark.parametrize(
    "pictures", [scenes(), gradients(), scenes(12) + scenes(1) * 8, scenes(12) + noise(8)]
)
def test_pictures_that_differ_are_fine(pictures: list[Image.Image]) -> None:
    assert levels(examine_pictures("pictures", pictures)) == ["fine"]


def test_pictures_one_pixel_high_are_examined() -> None:
    thin = [Image.new("RGB", (64, 1), (n, n, n)) for n in range(20)]
    one = [Image.new("RGB", (1, 1), (n, n, n)) for n in range(20)]
    assert levels(examine_pictures("pictures", thin)) == ["wrong"]
    assert levels(examine_pictures("pictures", one)) == ["wrong"]


def test_pictures_that_cannot_be_read() -> None:
    assert examine_readable("pictures", [], 64) == []
    assert levels(examine_readable("pictures", ["a.jpg: it is cut off"], 64)) == ["note"]
    assert levels(examine_readable("pictures", ["a.jpg: it is cut off"] * 40, 64)) == ["wrong"]
