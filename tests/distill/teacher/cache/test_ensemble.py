"""The caches of several teachers are read as one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.data.views import draw_view, render_view
from export.runtime.errors import CacheError
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.run.cache_stage import cache_folders
    from distill.teacher.cache.build import build_cache, open_cache
    from distill.teacher.cache.cache import Cache, CachedTeacher, caption_ids
    from distill.teacher.cache.ensemble import CachedEnsemble
    from distill.teacher.ensemble import Ensemble
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
    from tests.distill.teacher.ensemble_pieces import WideTeacher


@pytest.fixture
def ensemble() -> Ensemble:
    return Ensemble([CountingTeacher(), WideTeacher()], [1.0, 3.0])


@pytest.fixture
def source(tmp_path: Path) -> Pictures:
    return Pictures(write_pictures(tmp_path), KEYS, CAPTIONS)


def build(folder: Path, source: Pictures, ensemble: Ensemble, **options: Any) -> CachedEnsemble:
    caches: list[Cache] = []
    for member in ensemble.members:
        cache, _ = build_cache(
            folder / "cache" / member.name / "pictures",
            source,
            member,
            settings=SETTINGS,
            progress=silent,
            **options,
        )
        caches.append(cache)
    return CachedEnsemble([CachedTeacher([cache]) for cache in caches], ensemble.shares)


def test_it_returns_the_embeddings_that_live_teachers_compute(
    tmp_path: Path, source: Pictures, ensemble: Ensemble
) -> None:
    cached = build(tmp_path, source, ensemble)
    assert (cached.width, cached.logit_scale, cached.logit_bias) == (8, 42.5, -2.25)
    views = [0, 2, 1, 1]
    with Image.open(tmp_path / KEYS[3]) as image:
        boxes = [draw_view(VIEWS, KEYS[3], number, size=image.size) for number in views]
        pixels = [
            torch.from_numpy(np.stack([render_view(image, box, look) for box in boxes]))
            for look in ensemble.preprocessing
        ]
    found = cached.images([0] * 4, [KEYS[3]] * 4, views)
    torch.testing.assert_close(found, ensemble.encode_images(pixels), atol=1e-3, rtol=0)
    texts = ["bb", "a", "ca"]
    expected = ensemble.encode_texts(texts)
    torch.testing.assert_close(cached.captions(texts), expected, atol=1e-3, rtol=0)


def test_training_asks_live_and_cached_teachers_alike(
    tmp_path: Path, source: Pictures, ensemble: Ensemble
) -> None:
    cached = build(tmp_path, source, ensemble)
    pixels = [
        torch.randint(0, 256, (2, *look.size, 3), dtype=torch.uint8)
        for look in ensemble.preprocessing
    ]
    live_rows = SimpleNamespace(
        captions=["a", "bb"], teacher_pixels=pixels, teacher_image=None, teacher_text=None
    )
    image, text = ensemble.embed(live_rows)
    torch.testing.assert_close(image, ensemble.encode_images(pixels))
    torch.testing.assert_close(text, ensemble.encode_texts(["a", "bb"]))
    assert ensemble.cached is None
    # With a cache, batches carry no pixels: a worker has looked the embeddings up.
    assert (cached.cached, cached.preprocessing) == (cached, ())
    rows = SimpleNamespace(
        captions=["a"], teacher_pixels=(), teacher_image=image, teacher_text=None
    )
    assert cached.embed(rows) == (image, None)
    assert torch.equal(cached.encode_texts(["bb", "a"]), cached.captions(["bb", "a"]))


def test_a_batch_without_captions_or_pixels_has_no_embeddings_of_them(ensemble: Ensemble) -> None:
    empty = SimpleNamespace(captions=[], teacher_pixels=(), teacher_image=None, teacher_text=None)
    assert ensemble.embed(empty) == (None, None)


def test_only_live_teachers_count_the_captions_that_they_cut(
    tmp_path: Path, source: Pictures, ensemble: Ensemble
) -> None:
    cached = build(tmp_path, source, ensemble)
    ensemble.members[1].truncated = 3
    assert ensemble.cut_captions() == {"counting (teacher.0)": 0, "wide (teacher.1)": 3}
    assert cached.cut_captions() == {}


def test_every_teacher_draws_the_same_rows_of_the_corpus(
    tmp_path: Path, source: Pictures, ensemble: Ensemble
) -> None:
    # The second teacher's cache was written in another order and holds more.
    more = Pictures(tmp_path, KEYS[::-1], CAPTIONS[::-1])
    build(tmp_path, more, Ensemble(ensemble.members[1:], [1.0]), extra_texts=["abc", "dddd"])
    cached = build(tmp_path, source, ensemble)
    cached.attach([source])
    drawn, ids = cached.corpus("captions", 5, 0, 1), cached.corpus_ids("captions", 5, 0, 1)
    for text, number in zip(drawn, ids.tolist(), strict=True):
        distances = (cached.captions(CAPTIONS) - text).norm(dim=1)
        assert distances.min() < 1e-6
        # The id belongs to the caption of this embedding, for both teachers.
        assert number == caption_ids([CAPTIONS[int(distances.argmin())]])[0]
    assert cached.corpus("images", 100, 0).shape == (10, 8)


def test_caches_with_different_pictures_are_refused_as_a_corpus(
    tmp_path: Path, source: Pictures, ensemble: Ensemble
) -> None:
    part = Pictures(tmp_path, KEYS[:8], CAPTIONS[:8])
    build(tmp_path, part, Ensemble(ensemble.members[1:], [1.0]))
    whole = Ensemble(ensemble.members[:1], [1.0])
    build(tmp_path, source, whole, parts=["images"])
    caches = [reopen(tmp_path, member) for member in ensemble.members]
    cached = CachedEnsemble(caches, ensemble.shares)
    cached.attach([source])
    with pytest.raises(CacheError, match=r"counting and .*wide: they do not hold the same images"):
        cached.corpus("images", 4, 0)


def reopen(folder: Path, member: Any) -> CachedTeacher:
    place = folder / "cache" / member.name / "pictures"
    return CachedTeacher([open_cache(place, member, SETTINGS)])


def folders(members: list[CountingTeacher]) -> list[str]:
    project = SimpleNamespace(
        config=SimpleNamespace(cache=SimpleNamespace(folder=None)),
        teacher=Ensemble(members, [1.0] * len(members)),
        sources=[SimpleNamespace(name="data/train.csv")],
    )
    found = cache_folders(project, Path("run"))
    return [str(folder) for of_teacher in found for folder in of_teacher]


def test_each_teacher_has_its_own_folder_in_any_order() -> None:
    first, second, other = (
        CountingTeacher("0123456789"),
        CountingTeacher("9876543210"),
        WideTeacher(),
    )
    assert folders([first]) == ["run/cache/counting/data-train.csv"]
    assert folders([first, other]) == [
        "run/cache/counting/data-train.csv",
        "run/cache/wide/data-train.csv",
    ]
    both = [
        "run/cache/counting-01234567/data-train.csv",
        "run/cache/counting-98765432/data-train.csv",
    ]
    assert folders([first, second]) == both
    assert folders([second, first]) == both[::-1]
