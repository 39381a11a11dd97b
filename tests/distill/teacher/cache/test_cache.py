"""A cache holds a teacher's embeddings, and only those it was built for."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.data.views import draw_view, render_view
from export.runtime.errors import CacheError, DataError
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.teacher.cache.build import BuildSettings, Sharing, build_cache
    from distill.teacher.cache.cache import Cache, CachedTeacher, caption_ids, picture_ids
    from distill.teacher.cache.rows import draw_rows
    from tests.distill.teacher.cache.cache_pieces import (
        CAPTIONS,
        KEYS,
        SETTINGS,
        VIEWS,
        CountingTeacher,
        Pictures,
        silent,
        write_pictures,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path)


def build(
    folder: Path,
    source: Pictures,
    teacher: CountingTeacher,
    *,
    settings: BuildSettings | None = None,
) -> Cache:
    settings = settings or SETTINGS
    cache, _ = build_cache(folder / "cache", source, teacher, settings=settings, progress=silent)
    return cache


def expected_image(teacher: CountingTeacher, folder: Path, key: str, view: int) -> torch.Tensor:
    image = Image.open(folder / key).convert("RGB")
    drawn = draw_view(VIEWS, key, view, size=image.size)
    pixels = render_view(image, drawn, teacher.preprocessing)
    return teacher.encode_images(torch.from_numpy(pixels.copy())[None])[0]


def test_a_lookup_returns_the_embedding_of_that_view(folder: Path) -> None:
    teacher = CountingTeacher()
    cached = CachedTeacher([build(folder, Pictures(folder, KEYS, CAPTIONS), teacher)])
    found = cached.images([0, 0, 0], ["7.png", "0.png", "7.png"], [2, 1, 0])
    for row, (key, view) in enumerate([("7.png", 2), ("0.png", 1), ("7.png", 0)]):
        # Rounding a number below 1 to float16 changes it by at most 2^-11.
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


def test_a_killed_build_continues_after_the_last_whole_shard(folder: Path) -> None:
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
    # Shards hold 4 pictures with 3 views; the second was incomplete when the build died.
    assert teacher.pictures == (10 - 4) * 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fingerprint": "other"}, "fingerprint"),
        ({"scale": (0.5, 1.0)}, "views.scale"),
        ({"view_count": 2}, "cache.views"),
        ({"dtype": "float32"}, "cache.dtype"),
    ],
)
def test_a_cache_of_something_else_is_refused_by_name(
    folder: Path, change: dict[str, Any], named: str
) -> None:
    source = Pictures(folder, KEYS, CAPTIONS)
    build(folder, source, CountingTeacher())
    teacher = CountingTeacher(str(change.pop("fingerprint", "f")))
    if "scale" in change:
        change = {"views": dataclasses.replace(VIEWS, **change)}
    with pytest.raises(CacheError, match=rf"{named}.*cache\.folder"):
        build(folder, source, teacher, settings=dataclasses.replace(SETTINGS, **change))


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
        folder / "cache", source, teacher, settings=settings, progress=silent
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


def test_a_cache_of_centre_crops_is_refused_for_random_crops_and_both_fixes_are_named(
    folder: Path,
) -> None:
    source = Pictures(folder, KEYS, CAPTIONS)
    centre = dataclasses.replace(VIEWS, kind="center")
    build(
        folder,
        source,
        CountingTeacher(),
        settings=dataclasses.replace(SETTINGS, views=centre, view_count=1),
    )
    with pytest.raises(CacheError) as refused:
        build(folder, source, CountingTeacher())
    message = str(refused.value)
    assert "built for centre crops, but the recipe asks for random crops" in message
    assert "set views.kind: center, or set cache.folder to another folder" in message
    assert "\n" not in message


@pytest.mark.parametrize("dtype", ["float16", "int8", "float32"])
def test_files_have_the_documented_format(folder: Path, dtype: Any) -> None:
    teacher, source = CountingTeacher(), Pictures(folder, KEYS, CAPTIONS)
    settings = dataclasses.replace(SETTINGS, dtype=dtype)
    cached = CachedTeacher([build(folder, source, teacher, settings=settings)])
    exact = np.stack([expected_image(teacher, folder, key, 1).numpy() for key in KEYS[:4]])
    stored = np.load(folder / "cache" / "images-00000.npy")
    assert stored.dtype == dtype
    assert stored.shape == (4, 3, 3)
    if dtype == "int8":
        # Symmetric, with one scale per vector: the largest number becomes 127 or -127.
        scales = np.load(folder / "cache" / "images-00000.scales.npy")
        assert (scales.dtype, scales.shape) == (np.float32, (4, 3))
        assert np.allclose(scales[:, 1], np.abs(exact).max(axis=1) / 127, rtol=1e-6)
        assert np.array_equal(stored[:, 1], np.rint(exact / scales[:, 1:2]))
    else:
        assert np.array_equal(stored[:, 1], exact.astype(dtype))
    read = cached.images([0] * 4, KEYS[:4], [1] * 4)
    assert read.dtype == torch.float32
    assert torch.allclose(read.norm(dim=-1), torch.ones(4), atol=1e-6)
    # Half a rounding step: 2^-12 for a number below 1, 1/254 of the largest, or nothing.
    tolerance = {"float16": 2**-11, "int8": 1 / 200, "float32": 1e-6}[dtype]
    assert np.abs(read.numpy() - exact).max() <= tolerance


def test_a_cache_without_its_scales_is_refused_by_name(folder: Path) -> None:
    source = Pictures(folder, KEYS, CAPTIONS)
    settings = dataclasses.replace(SETTINGS, dtype="int8")
    build(folder, source, CountingTeacher(), settings=settings)
    (folder / "cache" / "captions-00000.scales.npy").unlink()
    with pytest.raises(CacheError, match=r"captions-00000\.npy: the shard is missing or damaged"):
        build(folder, source, CountingTeacher(), settings=settings)


def test_other_texts_are_embedded_once_and_are_not_in_the_corpus(folder: Path) -> None:
    teacher, source = CountingTeacher(), Pictures(folder, KEYS, CAPTIONS)
    texts = ["abc", "a", "cab"]
    for _ in range(2):
        cache, _ = build_cache(
            folder / "cache",
            source,
            teacher,
            settings=SETTINGS,
            progress=silent,
            extra_texts=texts,
        )
    assert sorted(teacher.texts) == sorted({*CAPTIONS, "abc", "cab"})
    assert cache.missing(source, extra_texts=["abc", "cb", "cb"]).captions == ["cb"]
    cached = CachedTeacher([cache])
    assert torch.allclose(cached.captions(texts), teacher.encode_texts(texts), atol=1e-3)
    cached.attach([source])
    assert len(cached.corpus("captions", 100, "step", 1)) == len(set(CAPTIONS))


def test_a_caption_of_two_sources_is_embedded_once(folder: Path) -> None:
    teacher = CountingTeacher()
    first = build(folder, Pictures(folder, KEYS, CAPTIONS), teacher)
    asked = list(teacher.texts)
    source = Pictures(folder, KEYS[:3], ["ca", "cab", "a"])
    second, _ = build_cache(
        folder / "second",
        source,
        teacher,
        settings=SETTINGS,
        progress=silent,
        sharing=Sharing(caches=[first]),
    )
    assert teacher.texts == [*asked, "cab"]
    assert not second.missing(source)
    assert torch.allclose(
        CachedTeacher([second]).captions(["ca", "cab", "a"]),
        teacher.encode_texts(["ca", "cab", "a"]),
        atol=1e-3,
    )


def attached(folder: Path, views: int = 3) -> tuple[CachedTeacher, CountingTeacher]:
    """Return a teacher over two caches, attached to five and to two of their pictures."""
    teacher = CountingTeacher()
    settings = dataclasses.replace(SETTINGS, view_count=views, dtype="float32")
    caches = [
        build_cache(
            folder / name,
            Pictures(folder, KEYS, CAPTIONS),
            teacher,
            settings=settings,
            progress=silent,
        )[0]
        for name in ("one", "two")
    ]
    cached = CachedTeacher(caches)
    cached.attach(
        [Pictures(folder, KEYS[:5], CAPTIONS[:5]), Pictures(folder, KEYS[6:8], CAPTIONS[6:8])]
    )
    return cached, teacher


def test_the_corpus_holds_the_attached_sources(folder: Path) -> None:
    cached, teacher = attached(folder, views=1)
    pictures = cached.corpus("images", 1000, "step", 0)
    expected = torch.stack(
        [expected_image(teacher, folder, key, 0) for key in [*KEYS[:5], *KEYS[6:8]]]
    )
    ids = cached.corpus_ids("images", 1000, "step", 0).tolist()
    wanted = picture_ids([0] * 5 + [1] * 2, [*KEYS[:5], *KEYS[6:8]]).tolist()
    assert torch.allclose(pictures[[ids.index(one) for one in wanted]], expected, atol=1e-3)
    captions = cached.corpus("captions", 1000, "step", 0)
    ids = cached.corpus_ids("captions", 1000, "step", 0).tolist()
    assert sorted(ids) == sorted(caption_ids(["a", "b", "c", "ab", "bc", "aa"]).tolist())
    # "a" is in both sources and counts once.
    expected = teacher.encode_texts(["a", "b", "c", "ab", "bc", "aa"])
    assert captions.shape == expected.shape
    distances = torch.cdist(captions, expected)
    assert distances.min(dim=0).values.max() < 1e-6
    assert distances.min(dim=1).values.max() < 1e-6


def test_ids_go_with_the_rows_that_are_drawn(folder: Path) -> None:
    cached, teacher = attached(folder)
    rows = cached.corpus("captions", 3, "step", 7)
    ids = cached.corpus_ids("captions", 3, "step", 7).tolist()
    texts = ["a", "b", "c", "ab", "bc", "aa"]
    of_ids = dict(zip(caption_ids(texts).tolist(), texts, strict=True))
    assert len(set(ids)) == 3
    assert torch.allclose(rows, teacher.encode_texts([of_ids[one] for one in ids]), atol=1e-3)


def test_a_draw_of_the_corpus_repeats_nothing_and_follows_from_its_arguments(
    folder: Path,
) -> None:
    cached, teacher = attached(folder)
    views = {
        key: torch.stack([expected_image(teacher, folder, key, view) for view in range(3)])
        for key in [*KEYS[:5], *KEYS[6:8]]
    }
    seen: set[tuple[str, int]] = set()
    for step in range(60):
        drawn = cached.corpus("images", 4, "bank", 0, step)
        assert drawn.shape == (4, 3)
        assert torch.equal(drawn, cached.corpus("images", 4, "bank", 0, step))
        shown = []
        for row in drawn:
            near = {
                (key, view): float((row - known[view]).norm())
                for key, known in views.items()
                for view in range(3)
            }
            shown.append(min(near, key=lambda name: near[name]))
            assert near[shown[-1]] < 1e-6
        assert len({key for key, _ in shown}) == 4
        seen |= set(shown)
    # Every view of every picture is drawn; in pictures this small, some crops are the same.
    assert len(seen) == len({tuple(row.tolist()) for known in views.values() for row in known})


@pytest.mark.parametrize(("total", "count"), [(10, 4), (1000, 20), (100_000, 5000)])
def test_rows_are_drawn_without_repetition_and_evenly(total: int, count: int) -> None:
    hits = np.zeros(total)
    rounds = 40
    for step in range(rounds):
        rows = draw_rows(total, count, "seed", step)
        assert len(rows) == count
        assert np.all(np.diff(rows) > 0)
        assert rows[0] >= 0
        assert rows[-1] < total
        hits[rows] += 1
    halves = hits.reshape(2, -1).sum(axis=1)
    # Each half is drawn equally often, within five standard deviations of a fair coin.
    assert abs(halves[0] - halves[1]) < 5 * np.sqrt(rounds * count)
    assert np.array_equal(draw_rows(total, total + 1, "x"), np.arange(total))


def test_an_unreadable_picture_of_another_list_is_not_in_the_corpus(
    folder: Path,
) -> None:
    (folder / "4.png").write_bytes(b"no picture")
    source = Pictures(folder, KEYS, CAPTIONS)
    settings = dataclasses.replace(SETTINGS, max_skipped=0.2)
    cached = CachedTeacher([build(folder, source, CountingTeacher(), settings=settings)])
    cached.attach([source])
    assert len(cached.corpus("images", 100, "step")) == 9
