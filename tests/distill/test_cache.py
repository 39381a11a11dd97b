"""The teacher's embeddings on disk."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distill.cache import Cache, CachedTeacher
from distill.cache_build import BuildSettings, build_cache
from distill.data.sample import Sample, Skip
from distill.views import ViewSettings, draw_view, render_view
from export.runtime.errors import CacheError, DataError
from export.runtime.preprocess import Preprocessing

VIEWS = ViewSettings(
    seed=0, kind="random", scale=(0.3, 1.0), ratio=(1.0, 1.0), flip=False, color_jitter=0.0
)
SETTINGS = BuildSettings(
    view_count=3, dtype="float16", shard_rows=4, batch_size=2, workers=0, max_skipped=0.01
)


class CountingTeacher:
    """Embeds a picture by its average colour and a text by its letters; counts what it is asked."""

    name = "counting"
    width = 3
    logit_scale = 20.0
    logit_bias = 0.0
    context_length = 8
    parameters = 0
    bytes = 0
    truncated = 0
    preprocessing = Preprocessing(
        size=(8, 8),
        resize="square",
        resize_to=None,
        crop=False,
        crop_offset="floor",
        resample="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )

    def __init__(self, fingerprint: str = "f") -> None:
        self.fingerprint = fingerprint
        self.pictures = 0
        self.texts: list[str] = []

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        self.pictures += len(pixels)
        return torch.nn.functional.normalize(pixels.float().mean(dim=(1, 2)), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts += texts
        letters = torch.tensor(
            [[float(text.count(letter)) + 1 for letter in "abc"] for text in texts]
        )
        return torch.nn.functional.normalize(letters, dim=-1)


class Pictures:
    """A source of picture files."""

    name = "pictures"
    skipped: tuple[Skip, ...] = ()

    def __init__(self, folder: Path, keys: Sequence[str], captions: Sequence[str]) -> None:
        self._samples = [
            Sample(key, folder / key, (caption,), None)
            for key, caption in zip(keys, captions, strict=True)
        ]
        self.rows = len(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for number in range(10):
        pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


KEYS = [f"{number}.png" for number in range(10)]
CAPTIONS = ["a", "b", "c", "ab", "bc", "ca", "a", "aa", "bb", "cc"]


def silent(part: str, done: int, total: int) -> None:
    """Show nothing."""


def build(
    folder: Path,
    source: Pictures,
    teacher: CountingTeacher,
    *,
    views: ViewSettings = VIEWS,
    settings: BuildSettings = SETTINGS,
) -> Cache:
    cache, _ = build_cache(
        folder / "cache", source, teacher, views=views, settings=settings, progress=silent
    )
    return cache


def expected_image(teacher: CountingTeacher, folder: Path, key: str, view: int) -> torch.Tensor:
    image = Image.open(folder / key).convert("RGB")
    drawn = draw_view(VIEWS, key, view, size=image.size)
    pixels = render_view(image, drawn, teacher.preprocessing)
    return teacher.encode_images(torch.from_numpy(pixels.copy())[None])[0]


def test_a_lookup_gives_what_the_teacher_says_of_that_view(folder: Path) -> None:
    teacher = CountingTeacher()
    cached = CachedTeacher([build(folder, Pictures(folder, KEYS, CAPTIONS), teacher)])
    found = cached.images([0, 0, 0], ["7.png", "0.png", "7.png"], [2, 1, 0])
    for row, (key, view) in enumerate([("7.png", 2), ("0.png", 1), ("7.png", 0)]):
        # Rounding to float16 is off by at most 2^-11 of a number below 1.
        assert torch.allclose(found[row], expected_image(teacher, folder, key, view), atol=1e-3)
    assert torch.allclose(found.norm(dim=-1), torch.ones(3), atol=1e-6)
    texts = cached.captions(["ca", "a"])
    assert torch.allclose(texts, teacher.encode_texts(["ca", "a"]), atol=1e-3)


def test_each_view_and_each_caption_is_embedded_once(folder: Path) -> None:
    teacher = CountingTeacher()
    source = Pictures(folder, KEYS, CAPTIONS)
    build(folder, source, teacher)
    assert teacher.pictures == 30
    assert sorted(teacher.texts) == sorted(set(CAPTIONS))
    build(folder, source, teacher)
    assert teacher.pictures == 30


def test_one_cache_serves_another_order_a_subset_and_more_captions(folder: Path) -> None:
    teacher = CountingTeacher()
    build(folder, Pictures(folder, KEYS, CAPTIONS), teacher)
    asked = teacher.pictures
    build(folder, Pictures(folder, KEYS[::-1][:4], ["a", "b", "abc", "c"]), teacher)
    assert teacher.pictures == asked
    assert teacher.texts[-1] == "abc"


def test_a_changed_picture_is_embedded_again_and_replaces_the_old_row(folder: Path) -> None:
    teacher = CountingTeacher()
    source = Pictures(folder, KEYS, CAPTIONS)
    cache = build(folder, source, teacher)
    Image.new("RGB", (30, 30), (250, 5, 5)).save(folder / "3.png")
    missing = cache.missing(source)
    assert (missing.pictures, missing.changed, missing.captions) == ([3], 1, [])
    cached = CachedTeacher([build(folder, source, teacher)])
    assert torch.allclose(
        cached.images([0], ["3.png"], [0])[0],
        expected_image(teacher, folder, "3.png", 0),
        atol=1e-3,
    )


def test_a_killed_build_goes_on_at_the_last_whole_shard(folder: Path) -> None:
    class Dying(CountingTeacher):
        def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
            if self.pictures >= 18:
                raise KeyboardInterrupt
            return super().encode_images(pixels)

    source = Pictures(folder, KEYS, CAPTIONS)
    with pytest.raises(KeyboardInterrupt):
        build(folder, source, Dying())
    teacher = CountingTeacher()
    build(folder, source, teacher)
    # Shards hold 4 pictures of 3 views; the second was not whole when the build died.
    assert teacher.pictures == (10 - 4) * 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fingerprint": "other"}, "fingerprint"),
        ({"views": dataclasses.replace(VIEWS, scale=(0.5, 1.0))}, "views.scale"),
        ({"views": dataclasses.replace(VIEWS, kind="center")}, "views.kind"),
        ({"settings": dataclasses.replace(SETTINGS, view_count=2)}, "view_count"),
        ({"settings": dataclasses.replace(SETTINGS, dtype="float32")}, "dtype"),
    ],
)
def test_a_cache_of_something_else_is_refused_by_name(
    folder: Path, change: dict[str, Any], named: str
) -> None:
    source = Pictures(folder, KEYS, CAPTIONS)
    build(folder, source, CountingTeacher())
    teacher = CountingTeacher(str(change.pop("fingerprint", "f")))
    with pytest.raises(CacheError, match=rf"{named}.*cache\.folder"):
        build(folder, source, teacher, **change)


def test_a_damaged_shard_is_refused_by_name(folder: Path) -> None:
    source = Pictures(folder, KEYS, CAPTIONS)
    build(folder, source, CountingTeacher())
    shard = folder / "cache" / "images-00001.npy"
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(CacheError, match=r"images-00001\.npy"):
        build(folder, source, CountingTeacher())


def test_an_unreadable_picture_is_left_out_and_not_tried_again(folder: Path) -> None:
    (folder / "4.png").write_bytes(b"no picture")
    settings = dataclasses.replace(SETTINGS, max_skipped=0.2)
    source = Pictures(folder, KEYS, CAPTIONS)
    teacher = CountingTeacher()
    cache, skips = build_cache(
        folder / "cache", source, teacher, views=VIEWS, settings=settings, progress=silent
    )
    assert ["4.png" in skip.where for skip in skips] == [True]
    assert not cache.missing(source)
    with pytest.raises(CacheError, match=r"4\.png"):
        CachedTeacher([cache]).images([0], ["4.png"], [0])


def test_too_many_unreadable_pictures_stop_the_build(folder: Path) -> None:
    for number in (1, 2):
        (folder / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"data\.max_skipped"):
        build(folder, Pictures(folder, KEYS, CAPTIONS), CountingTeacher())
