"""Retrieval with vectors written by hand, several captions for a picture."""

import numpy as np
import pytest

from distill.evaluate.evaluation_set import EvaluationSet
from distill.evaluate.metrics import metrics_of
from export.runtime.errors import DataError
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.evaluate.compare import measure

NAMES = [metric.name for metric in metrics_of("retrieval")]
IMAGES = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
ENTRIES = [
    (("zero a", "zero b"), None),
    ((), None),
    (("two",), None),
]
TEXTS = {"zero a": [0, 0, 1], "zero b": [2, 0, 0], "two": [0.9, 0, 0.1]}


def retrieval(encoders, source):
    return measure(encoders, EvaluationSet("set", "retrieval", source))


def recalls(result):
    """Return the six recalls and their mean."""
    names = [name for name in NAMES if "_recall@" in name or name == "mean_recall"]
    assert len(names) == 7
    return [result.results["student"][name] for name in names]


def test_numbers_of_a_case_made_by_hand(make_source, make_encoder):
    result = retrieval([make_encoder("student", IMAGES, TEXTS)], make_source(ENTRIES))
    # The picture without captions does not count. Picture 0 finds "zero b" first. Picture 2 finds
    # "zero a" first and "two" second. "zero b" finds its picture, "zero a" and "two" do not.
    assert result.samples == 2
    values = result.results["student"]
    assert list(values) == NAMES
    assert values["image_to_text_recall@1"] == 0.5
    assert values["image_to_text_recall@5"] == 1.0
    assert values["text_to_image_recall@1"] == pytest.approx(1 / 3)
    assert values["text_to_image_recall@10"] == 1.0
    assert values["mean_recall"] == pytest.approx((0.5 + 1 + 1 + 1 / 3 + 1 + 1) / 6)


def test_recalls_are_those_of_the_sorted_matrix(make_source, make_encoder):
    generator = np.random.default_rng(3)
    pictures, per_picture = 30, 5
    images = generator.standard_normal((pictures, 4))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    texts = {}
    entries = []
    for number in range(pictures):
        captions = [f"{number} {letter}" for letter in "abcde"]
        for caption in captions:
            vector = images[number] + 0.8 * generator.standard_normal(4)
            texts[caption] = list(vector / np.linalg.norm(vector))
        entries.append((captions, None))
    result = retrieval([make_encoder("student", list(images), texts)], make_source(entries))
    scores = images @ np.array(list(texts.values())).T
    owners = np.repeat(np.arange(pictures), per_picture)
    for k in (1, 5, 10):
        found = [number in owners[np.argsort(-scores[number])[:k]] for number in range(pictures)]
        assert result.results["student"][f"image_to_text_recall@{k}"] == np.mean(found)
        found = [owner in np.argsort(-scores[:, text])[:k] for text, owner in enumerate(owners)]
        assert result.results["student"][f"text_to_image_recall@{k}"] == np.mean(found)


def test_agreement_treats_a_caption_as_its_picture(make_source, make_encoder):
    entries = [(("zero a", "zero b"), None), (("one",), None)]
    teacher = make_encoder(
        "teacher", [[1, 0], [0, 1]], {"zero a": [1, 0], "zero b": [0.9, 0.1], "one": [0, 1]}
    )
    # The other caption of picture 0 is the same answer. "one" finds the wrong picture.
    student = make_encoder(
        "student", [[1, 0], [0, 1]], {"zero a": [0.9, 0.1], "zero b": [1, 0], "one": [0.6, 0.4]}
    )
    result = retrieval([teacher, student], make_source(entries))
    assert result.agreement("teacher", "teacher") == 1.0
    assert result.agreement("student", "teacher") == pytest.approx((1 + 2 / 3) / 2)
    assert result.agreement("student", "nobody") is None


def test_captions_are_matched_in_any_number_and_length(make_source, make_encoder):
    captions = ["x" * (1 + 7 * number % 20) + f" {number}" for number in range(1200)]
    groups = [(captions[first : first + 6], None) for first in range(0, 1200, 6)]
    vectors = np.random.default_rng(0).standard_normal((200, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = {text: list(vectors[number // 6]) for number, text in enumerate(captions)}
    result = retrieval([make_encoder("student", list(vectors), texts)], make_source(groups))
    assert set(recalls(result)) == {1.0}


def test_a_collapsed_model_reaches_nothing(make_source, make_encoder):
    captions = [([f"t{number}"], None) for number in range(20)]
    encoder = make_encoder("student", [[1, 0]] * 20, {f"t{n}": [1, 0] for n in range(20)})
    result = retrieval([encoder], make_source(captions))
    assert set(recalls(result)) == {0.0}


def test_a_model_of_one_tower_has_no_numbers(make_source, make_encoder):
    result = retrieval([make_encoder("student", IMAGES, None)], make_source(ENTRIES))
    assert result.results["student"] == dict.fromkeys(NAMES)


def test_a_source_without_captions_is_an_error(make_source, make_encoder):
    with pytest.raises(
        DataError, match=r"memory: no picture has a caption.*needs captions.*task: zero_shot"
    ):
        retrieval([make_encoder("student", IMAGES, TEXTS)], make_source([((), "cat")]))
