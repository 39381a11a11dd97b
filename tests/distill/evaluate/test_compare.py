"""The content of report.json."""

import json

import pytest

from distill.evaluate.evaluation_set import EvaluationSet
from distill.evaluate.metrics import metrics_of
from export.runtime.errors import DataError, RecipeError
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.evaluate.compare import check_set, compare, headline, measure
    from distill.evaluate.pictures import Options

TEXTS = {"a cat.": [1, 0], "a dog.": [0, 1], "first": [1, 0], "second": [0, 1]}
ENTRIES = [(("first",), "cat"), (("second",), "dog")]


@pytest.fixture
def sets(make_source):
    source = make_source(ENTRIES)
    return [
        EvaluationSet("classes", "zero_shot", source, templates=("a {}.",)),
        EvaluationSet("captions", "retrieval", source),
    ]


def test_the_report_has_the_form_of_format_1(make_encoder, sets):
    teacher = make_encoder("teacher", [[1, 0], [0, 1]], TEXTS, parameters=100, bytes=400)
    student = make_encoder("student", [[1, 0], [1, 0]], TEXTS, parameters=10, bytes=None)
    report, skipped = compare([teacher, student], sets)
    assert skipped == []
    assert report["format"] == 1
    assert report["models"] == [
        {"name": "teacher", "parameters": 100, "bytes": 400},
        {"name": "student", "parameters": 10, "bytes": None},
    ]
    classes, captions = report["sets"]
    assert classes == {
        "name": "classes",
        "task": "zero_shot",
        "samples": 2,
        "results": classes["results"],
        "retained": {"teacher": 1.0, "student": 0.5},
        "agreement": {"teacher": 1.0, "student": 0.5},
    }
    assert list(classes["results"]) == ["teacher", "student"]
    for name, values in (("teacher", (1.0, 1.0, 1.0)), ("student", (0.5, 1.0, 0.5))):
        found = classes["results"][name]
        assert list(found) == [metric.name for metric in metrics_of("zero_shot")]
        assert (found["top1"], found["top5"], found["mean_per_class_recall"]) == values
    assert captions["task"] == "retrieval"
    # Pictures 0 and 1 are equal: one finds its caption, but no caption can distinguish them.
    mean = (0.5 + 1 + 1 + 0 + 1 + 1) / 6
    assert captions["results"]["student"]["mean_recall"] == pytest.approx(mean)
    assert captions["retained"]["student"] == pytest.approx(mean)
    assert json.loads(json.dumps(report)) == report


def test_without_a_reference_nothing_is_retained(make_encoder, sets):
    student = make_encoder("student", [[1, 0], [0, 1]], TEXTS)
    report, _ = compare([student], sets)
    for entry in report["sets"]:
        assert entry["retained"] == {"student": None}
        assert entry["agreement"] == {"student": None}


def test_a_reference_at_zero_leaves_no_share(make_encoder, sets):
    teacher = make_encoder("teacher", [[0, 1], [1, 0]], TEXTS)
    student = make_encoder("student", [[1, 0], [0, 1]], TEXTS)
    report, _ = compare([teacher, student], sets[:1])
    assert report["sets"][0]["retained"] == {"teacher": None, "student": None}


def test_another_reference_can_be_named(make_encoder, sets):
    first = make_encoder("float", [[1, 0], [0, 1]], TEXTS)
    second = make_encoder("int8", [[1, 0], [1, 0]], TEXTS)
    report, _ = compare([first, second], sets[:1], reference="float")
    assert report["sets"][0]["retained"] == {"float": 1.0, "int8": 0.5}


def test_pictures_are_decoded_once_for_all_encoders(make_encoder, sets, monkeypatch):
    from distill.evaluate import pictures

    opened = []
    original = pictures.open_image
    monkeypatch.setattr(
        pictures, "open_image", lambda sample: opened.append(sample.key) or original(sample)
    )
    encoders = [make_encoder(name, [[1, 0], [0, 1]], TEXTS) for name in "abc"]
    compare(encoders, sets[:1], reference="a")
    assert opened == ["p0.png", "p1.png"]


def test_skips_of_all_sets_are_returned(make_encoder, make_source):
    source = make_source(ENTRIES * 2, unreadable=[2])
    entry = EvaluationSet("captions", "retrieval", source)
    encoder = make_encoder("teacher", [[1, 0], [0, 1]] * 2, TEXTS)
    report, skipped = compare([encoder], [entry], options=Options(max_skipped=0.5))
    assert report["sets"][0]["samples"] == 3
    assert [skip.where for skip in skipped] == ["memory: p2.png"]
    with pytest.raises(DataError):
        compare([encoder], [entry])


def test_a_headline_stands_for_a_task(make_encoder, sets):
    student = make_encoder("student", [[1, 0], [0, 1]], TEXTS)
    for entry, name in zip(sets, ("top1", "mean_recall"), strict=True):
        assert headline(entry.task, measure([student], entry).results["student"]) == (name, 1.0)


def test_a_limit_never_adds_samples(sets):
    assert sets[0].limited(7).samples == 7
    assert sets[0].limited(7).limited(9).samples == 7


def test_names_are_given_once_and_tasks_are_known(make_encoder, sets):
    student = make_encoder("student", [[1, 0], [0, 1]], TEXTS)
    with pytest.raises(RecipeError, match=r"'student'.*more than once"):
        compare([student, student], sets)
    with pytest.raises(RecipeError, match=r"'classes'.*more than once"):
        compare([student], [sets[0], sets[0]])
    unknown = EvaluationSet("x", "probe", sets[0].source)
    message = r"evaluate\.x: task is 'probe'; it must be one of zero_shot, retrieval, agreement"
    with pytest.raises(RecipeError, match=message):
        measure([student], unknown)
    with pytest.raises(RecipeError, match=message):
        check_set(unknown)
