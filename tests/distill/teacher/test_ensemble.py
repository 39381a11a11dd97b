"""An ensemble joins the embeddings of its teachers, each from its own pixels."""

import math

import numpy as np
import pytest

from distill.recipe.teachers import HfTeacherSection
from export.runtime.errors import TeacherError
from tests.lazy import lazy_imports

with lazy_imports():
    import torch

    from distill.teacher import load
    from distill.teacher.ensemble import Ensemble
    from tests.distill.teacher.cache.cache_pieces import CountingTeacher
    from tests.distill.teacher.ensemble_pieces import WideTeacher

TEXTS = ["a", "cab", "dd"]


def joined(parts: list[np.ndarray], weights: list[float]) -> np.ndarray:
    """Join by hand: scale each part by the square root of its share, and normalise the whole."""
    scaled = [np.sqrt(w / sum(weights)) * part for part, w in zip(parts, weights, strict=True)]
    whole = np.concatenate(scaled, axis=1)
    return whole / np.linalg.norm(whole, axis=1, keepdims=True)


def test_it_joins_embeddings_of_each_teachers_own_pixels() -> None:
    members = [CountingTeacher(), WideTeacher()]
    ensemble = Ensemble(members, [2.0, 6.0])
    pixels = [
        torch.randint(0, 256, (4, *side, 3), dtype=torch.uint8) for side in ((8, 8), (12, 10))
    ]
    found = ensemble.encode_images(pixels)
    parts = [
        member.encode_images(some).numpy() for member, some in zip(members, pixels, strict=True)
    ]
    assert np.allclose(found, joined(parts, [2.0, 6.0]), atol=1e-6)
    texts = ensemble.encode_texts(TEXTS)
    parts = [member.encode_texts(TEXTS).numpy() for member in members]
    assert np.allclose(texts, joined(parts, [2.0, 6.0]), atol=1e-6)


def test_it_declares_sums_and_weighted_means() -> None:
    ensemble = Ensemble([CountingTeacher(), WideTeacher()], [1.0, 3.0])
    assert (ensemble.width, ensemble.widths) == (8, "8 (3 + 5)")
    assert ensemble.logit_scale == pytest.approx(0.25 * 20 + 0.75 * 50)
    assert ensemble.logit_bias == pytest.approx(-2.25)
    assert ensemble.titles == ["counting (teacher.0)", "wide (teacher.1)"]
    assert [look.size for look in ensemble.preprocessing] == [(8, 8), (12, 10)]
    assert math.fsum(share.weight for share in ensemble.shares) == 1


def test_an_ensemble_of_one_equals_its_teacher() -> None:
    member = WideTeacher()
    alone = Ensemble([member], [0.3])
    assert (alone.logit_scale, alone.logit_bias) == (member.logit_scale, member.logit_bias)
    assert (alone.name, alone.widths, alone.titles) == ("wide", "5", ["wide"])
    assert torch.equal(alone.encode_texts(TEXTS), member.encode_texts(TEXTS))


def test_errors_number_the_teachers_as_the_recipe_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(entry: HfTeacherSection, **_: str) -> CountingTeacher:
        if entry.model == "bad":
            raise TeacherError("teacher.model: bad is nowhere; give it as teacher.weights")
        return CountingTeacher(entry.model)

    monkeypatch.setattr(load, "load_teacher", fail)
    good, bad = HfTeacherSection(model="good"), HfTeacherSection(model="bad")
    with pytest.raises(TeacherError, match=r"^teacher\.1\.model: bad.* as teacher\.1\.weights$"):
        load.load_teachers([good, bad], device="cpu")
    with pytest.raises(TeacherError, match=r"^teacher\.model: bad is nowhere"):
        load.load_teachers([bad], device="cpu")
    # Fingerprints show that two teachers are the same, whatever their names.
    with pytest.raises(TeacherError, match=r"^teacher\.2\.model: good is the same as teacher\.0;"):
        load.load_teachers([good, HfTeacherSection(model="other"), good], device="cpu")
