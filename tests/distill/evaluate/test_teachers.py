"""The teachers of a recipe as encoders."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from tests.lazy import lazy_imports

with lazy_imports():
    from distill.evaluate.encoder import TeacherEncoder, Vectors
    from distill.evaluate.teachers import EnsembleEncoder
    from distill.teacher.ensemble import Ensemble
    from tests.distill.teacher.cache.cache_pieces import CountingTeacher
    from tests.distill.teacher.ensemble_pieces import WideTeacher


def pictures(count: int) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    sides = generator.integers(9, 30, (count, 2))
    return [
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for height, width in sides
    ]


def test_the_ensemble_joins_its_members_and_each_can_be_measured_alone() -> None:
    whole = EnsembleEncoder(Ensemble([CountingTeacher(), WideTeacher()], [1.0, 3.0]))
    first, second = whole.members
    assert [one.name for one in (whole, first, second)] == ["teacher", "teacher.0", "teacher.1"]
    assert (whole.parameters, second.parameters) == (7, 7)
    images, texts = pictures(70), ["a", "bcd"]
    for of_whole, ours, theirs in (
        (whole.encode_images(images), *(one.encode_images(images) for one in (first, second))),
        (whole.encode_texts(texts), *(one.encode_texts(texts) for one in (first, second))),
    ):
        assert ours is not None
        assert theirs is not None
        # The ensemble's cosines are the weighted means of theirs.
        expected = 0.25 * ours @ ours.T + 0.75 * theirs @ theirs.T
        assert np.allclose(of_whole @ of_whole.T, expected, atol=1e-6)
    found = second.encode_images(images)
    assert found is not None
    assert np.array_equal(found, TeacherEncoder(WideTeacher()).encode_images(images))


def test_members_embed_a_batch_once() -> None:
    counting, wide = CountingTeacher(), WideTeacher()
    whole = EnsembleEncoder(Ensemble([counting, wide], [1.0, 1.0]))
    images = pictures(5)
    for encoder in (whole, *whole.members):
        encoder.encode_images(images)
    assert (counting.pictures, wide.pictures) == (5, 5)
    # Another batch of the same size is a different batch.
    others = pictures(5)
    assert np.array_equal(whole.encode_images(images), whole.encode_images(others))
    assert counting.pictures == 10


def test_a_single_teacher_has_no_members_to_tell_apart() -> None:
    alone = EnsembleEncoder(Ensemble([WideTeacher()], [2.0]))
    assert alone.members == []
    images, itself = pictures(3), TeacherEncoder(WideTeacher())
    assert np.array_equal(alone.encode_images(images), itself.encode_images(images))


def test_texts_that_a_member_knows_are_looked_up() -> None:
    first, second = CountingTeacher(), CountingTeacher("g")
    known = TeacherEncoder(first).encode_texts(["a", "b"])
    first.texts.clear()

    def look_up(texts: Sequence[str]) -> Vectors | None:
        rows = {"a": known[0], "b": known[1]}
        return np.stack([rows[text] for text in texts]) if set(texts) <= set(rows) else None

    whole = EnsembleEncoder(Ensemble([first, second], [1.0, 1.0]), known=[look_up, lambda _: None])
    looked_up = whole.encode_texts(["b", "a"])
    assert (first.texts, second.texts) == ([], ["b", "a"])
    asked = EnsembleEncoder(Ensemble([first, second], [1.0, 1.0])).encode_texts(["b", "a"])
    assert np.array_equal(looked_up, asked)
    # If one text is unknown, all of them are embedded.
    first.texts.clear()
    whole.encode_texts(["a", "c"])
    assert first.texts == ["a", "c"]
