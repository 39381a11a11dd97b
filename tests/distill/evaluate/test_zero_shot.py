"""Zero-shot classification with vectors written by hand."""

import math

import numpy as np
import pytest

from distill.evaluate.evaluation_set import EvaluationSet
from distill.evaluate.metrics import metrics_of
from distill.labels.label_set import LabelSet
from export.runtime.errors import DataError
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.evaluate.compare import measure
    from distill.evaluate.pictures import Options

TEXTS = {"a cat.": [1, 0, 0], "a dog.": [0, 1, 0], "a red fox.": [0, 0, 1]}
ENTRIES = [((), "cat"), ((), "cat"), ((), "dog"), ((), "red_fox")]
# Right, wrong, right, right: top-1 3/4, per class (1/2 + 1 + 1) / 3.
IMAGES = [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]


def zero_shot(encoders, source, *, options=None, **settings):
    return measure(encoders, EvaluationSet("set", "zero_shot", source, **settings), options=options)


def test_numbers_of_a_case_made_by_hand(make_source, make_encoder):
    encoder = make_encoder("student", IMAGES, TEXTS)
    result = zero_shot([encoder], make_source(ENTRIES), templates=["a {}."])
    assert result.samples == 4
    assert list(result.results) == ["student"]
    found = result.results["student"]
    assert list(found) == [metric.name for metric in metrics_of("zero_shot")]
    assert (found["top1"], found["top5"]) == (0.75, 1.0)
    assert found["mean_per_class_recall"] == pytest.approx(2.5 / 3)


def test_classes_that_no_picture_has_are_candidates_but_not_in_the_mean(make_source, make_encoder):
    images = [[0, 0, 1], [1, 0, 0]]
    encoder = make_encoder("student", images, TEXTS)
    entries = [((), "cat"), ((), "cat"), ((), None)]
    result = zero_shot(
        [encoder], make_source(entries), classes=["red fox", "cat", "dog"], templates=["a {}."]
    )
    assert result.samples == 2
    assert result.results["student"]["top1"] == 0.5
    assert result.results["student"]["mean_per_class_recall"] == 0.5
    # Without the list, the cat is the only class.
    alone = zero_shot([encoder], make_source(entries), templates=["a {}."])
    assert alone.results["student"]["top1"] == 1.0


def test_top5_is_among_the_first_five(make_source, make_encoder):
    classes = [f"c{number}" for number in range(7)]
    texts = {f"{name}": list(np.eye(7)[number]) for number, name in enumerate(classes)}
    images = [[7, 6, 5, 4, 3, 2, 1]] * 7
    encoder = make_encoder("student", images, texts)
    result = zero_shot([encoder], make_source([((), name) for name in classes]), templates=["{}"])
    assert result.results["student"]["top1"] == pytest.approx(1 / 7)
    assert result.results["student"]["top5"] == pytest.approx(5 / 7)


def test_a_class_is_the_renormalised_mean_of_its_prompts_unit_vectors(make_encoder):
    texts = {"cat one": [3, 0], "cat two": [0, 0.5], "dog one": [1, 0], "dog two": [1, 0]}
    encoder = make_encoder("student", [], texts)
    vectors = LabelSet(("cat", "dog"), ("{} one", "{} two")).embed(encoder.encode_texts)
    np.testing.assert_allclose(vectors, [[math.sqrt(0.5)] * 2, [1, 0]], atol=1e-6)


def test_all_templates_of_a_class_count(make_source, make_encoder):
    # With the first template alone, the picture would be a dog.
    texts = {"cat 1": [0, 1, 0], "cat 2": [1, 0, 0], "dog 1": [0.8, 0, 0.6], "dog 2": [0, 0, 1]}
    encoder = make_encoder("student", [[1, 0, 0]], texts)
    for templates, top1 in ((["{} 1"], 0.0), (["{} 1", "{} 2"], 1.0)):
        result = zero_shot(
            [encoder],
            make_source([((), "cat")]),
            classes=["cat", "dog"],
            templates=templates,
        )
        assert result.results["student"]["top1"] == top1


def test_a_model_that_embeds_everything_alike_scores_zero(make_source, make_encoder):
    encoder = make_encoder("student", [[1, 1, 1]] * 4, {text: [1, 1, 1] for text in TEXTS})
    result = zero_shot([encoder], make_source(ENTRIES), templates=["a {}."])
    assert result.results["student"]["top1"] == 0.0


def test_a_model_of_one_tower_has_no_numbers(make_source, make_encoder):
    encoders = [
        make_encoder("pictures", IMAGES, None),
        make_encoder("texts", None, TEXTS),
        make_encoder("both", IMAGES, TEXTS),
    ]
    result = zero_shot(encoders, make_source(ENTRIES), templates=["a {}."])
    empty = dict.fromkeys(metric.name for metric in metrics_of("zero_shot"))
    assert result.results["pictures"] == result.results["texts"] == empty
    assert result.results["both"]["top1"] == 0.75
    assert result.agreement("pictures", "both") is None


def test_an_unreadable_picture_is_left_out_for_all_models(make_source, make_encoder):
    encoders = [make_encoder(name, IMAGES, TEXTS) for name in ("teacher", "student")]
    source = make_source(ENTRIES, unreadable=[1])
    result = zero_shot(encoders, source, templates=["a {}."], options=Options(max_skipped=0.25))
    assert result.samples == 3
    assert [encoder.seen for encoder in encoders] == [[0, 2, 3]] * 2
    assert result.results["student"]["top1"] == 1.0
    assert [skip.where for skip in result.skipped] == ["memory: p1.png"]
    with pytest.raises(DataError, match=r"1 of 4 pictures.*p1\.png"):
        zero_shot(encoders, source, templates=["a {}."], options=Options(max_skipped=0.2))


def test_a_limited_set_has_the_same_pictures_each_time_and_all_classes(make_source, make_encoder):
    entries = [((), name) for name in ["cat", "dog", "red fox"] * 20]
    images = [IMAGES[0]] * 60
    source = make_source(entries)
    seen = []
    for _ in range(2):
        encoder = make_encoder("student", images, TEXTS)
        result = zero_shot([encoder], source, templates=["a {}."], samples=9)
        assert result.samples == 9
        seen.append(encoder.seen)
    assert seen[0] == seen[1] == sorted(set(seen[0]))
    assert seen[0] != list(range(9))


def test_labels_that_do_not_fit_are_named(make_source, make_encoder):
    encoder = make_encoder("student", IMAGES, TEXTS)
    with pytest.raises(
        DataError, match=r"p3\.png has the label 'red_fox'.*not one of the 2 classes"
    ):
        zero_shot([encoder], make_source(ENTRIES), classes=["cat", "dog"], templates=["a {}."])
    with pytest.raises(
        DataError, match=r"memory: no picture has a label.*needs labels.*task: retrieval"
    ):
        zero_shot([encoder], make_source([(("text",), None)]))
    with pytest.raises(DataError, match=r"templates.*no \{\}"):
        zero_shot([encoder], make_source(ENTRIES), templates=["a cat."])
