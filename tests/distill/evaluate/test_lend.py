"""What models of one tower borrow from the teacher, and a teacher that embeds things once."""

import numpy as np
import pytest
from PIL import Image

from distill.evaluate.evaluation_set import EvaluationSet
from export.runtime.errors import TeacherError
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.evaluate.compare import measure
    from distill.evaluate.lend import Remembered
    from distill.evaluate.pictures import Options

ROWS = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
CAPTIONS = {"a": (1, 0, 0.1), "b": (0, 1, 0.1), "c": (0, 0.1, 1)}


def retrieval(encoders, source, *, lender):
    entry = EvaluationSet("set", "retrieval", source)
    return measure(encoders, entry, options=Options(lender=lender))


@pytest.fixture
def captioned(make_source):
    return make_source([((text,), text) for text in CAPTIONS])


@pytest.mark.parametrize(("side", "lent"), [("images", "texts"), ("texts", "images")])
def test_retrieval_against_the_teachers_other_side(captioned, make_encoder, side, lent):
    teacher = make_encoder("teacher", ROWS, CAPTIONS)
    # The student confuses the first two.
    swapped = {"a": CAPTIONS["b"], "b": CAPTIONS["a"], "c": CAPTIONS["c"]}
    images = [ROWS[1], ROWS[0], ROWS[2]] if side == "images" else None
    student = make_encoder("student", images, swapped if side == "texts" else None)
    for together in ([teacher, student], [student]):
        result = retrieval(together, captioned, lender=teacher)
        assert result.results["student"]["image_to_text_recall@1"] == pytest.approx(1 / 3)
        assert result.results["student"]["text_to_image_recall@1"] == pytest.approx(1 / 3)
        assert result.borrowed == {"student": lent}


@pytest.mark.parametrize("side", ["images", "texts"])
def test_zero_shot_against_the_teachers_other_side(captioned, make_encoder, side):
    prompts = {f"a photo of a {name}.": row for name, row in CAPTIONS.items()}
    teacher = make_encoder("teacher", ROWS, prompts)
    student = make_encoder(
        "student", ROWS if side == "images" else None, prompts if side == "texts" else None
    )
    entry = EvaluationSet("set", "zero_shot", captioned)
    result = measure([student], entry, options=Options(lender=teacher))
    assert result.results["student"]["top1"] == 1.0


def test_a_model_with_both_towers_borrows_nothing(captioned, make_encoder):
    teacher, student = (make_encoder(name, ROWS, CAPTIONS) for name in ("teacher", "student"))
    result = retrieval([student], captioned, lender=teacher)
    assert result.borrowed == {}
    assert teacher.seen == []


def test_a_remembered_teacher_embeds_everything_once(make_encoder):
    teacher = make_encoder("teacher", ROWS, CAPTIONS)
    remembered = Remembered(teacher)
    pictures = [Image.new("RGB", (2, 2), (number, 0, 0)) for number in (0, 1, 1)]
    first = remembered.encode_images(pictures), remembered.encode_texts(["b", "a", "b"])
    assert teacher.seen == [0, 1, 1]
    remembered.release()
    again = remembered.encode_images(iter(pictures)), remembered.encode_texts(["b", "a", "b"])
    for ours, theirs in zip(first, again, strict=True):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(first[0], np.array([ROWS[0], ROWS[1], ROWS[1]], np.float32))
    with pytest.raises(TeacherError, match="a validation picture or caption changed"):
        remembered.encode_texts(["c"])
    with pytest.raises(TeacherError, match="a validation picture or caption changed"):
        remembered.encode_images([Image.new("RGB", (1, 4), (0, 0, 0))])


def test_a_side_of_another_width_is_not_borrowed(captioned, make_encoder):
    teacher = make_encoder("teacher", ROWS, CAPTIONS)
    narrow = make_encoder("narrow", [row[:2] for row in ROWS], None)
    result = retrieval([narrow], captioned, lender=teacher)
    assert result.rankings == {"narrow": None}
    assert set(result.results["narrow"].values()) == {None}
    assert result.borrowed == {}


def test_nobody_lends_without_a_teacher(captioned, make_encoder):
    images = make_encoder("images", ROWS, None)
    texts = make_encoder("texts", None, CAPTIONS)
    result = retrieval([images, texts], captioned, lender=None)
    assert result.rankings == {"images": None, "texts": None}
    assert result.borrowed == {}
