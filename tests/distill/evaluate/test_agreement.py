"""Agreement with the teacher about labels, on cases made by hand."""

import numpy as np
import pytest

from distill.evaluate.evaluation_set import EvaluationSet
from distill.evaluate.metrics import metrics_of
from distill.labels.label_set import LabelSet
from export.runtime.errors import DataError, RecipeError
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.evaluate.agreement import SHOWN
    from distill.evaluate.compare import check_set, compare, headline, measure
    from distill.evaluate.pictures import Options

LABELS = LabelSet(("cat", "dog", "owl"), ("{}",))
TEXTS = {"cat": (1, 0, 0), "dog": (0, 1, 0), "owl": (0, 0, 1)}
# What the teacher sees in four pictures: a cat, a dog, an owl, and barely a cat.
SEEN = [(1, 0, 0), (0.05, 0.95, 0), (0, 0.2, 0.8), (0.5, 0.45, 0)]


@pytest.fixture
def source(make_source):
    return make_source([((), None)] * 4)


def on(source, teacher, *encoders, labels=LABELS):
    entry = EvaluationSet("set", "agreement", source, labels.names, labels.templates)
    return measure([teacher, *encoders], entry, options=Options(lender=teacher))


def shares(result, name):
    """Return how often the first label agrees, and how often it is among the first five."""
    found = result.results[name]
    return found["agreement@1"], found["agreement@5"]


def test_shares_and_pictures_of_a_case_made_by_hand(source, make_encoder):
    teacher = make_encoder("teacher", SEEN, TEXTS)
    # The second picture is an owl for the student and the fourth a dog.
    student = make_encoder("student", [SEEN[0], (0, 0, 1), SEEN[2], (0, 1, 0)], None)
    result = on(source, teacher, student)
    assert result.samples == 4
    assert shares(result, "teacher") == (1.0, 1.0)
    assert shares(result, "student") == (0.5, 1.0)
    assert result.agreement("student", "teacher") == 0.5
    assert result.borrowed == {"student": "texts"}
    assert "teacher" not in result.disagreements
    # The teacher is surest of the second, by 0.95 - 0, and then of the fourth, by 0.5 - 0.45.
    shown = [(entry.key, entry.reference, entry.found) for entry in result.disagreements["student"]]
    assert shown == [("p1.png", "dog", "owl"), ("p3.png", "cat", "dog")]


def test_top5_counts_the_teachers_label_among_five(make_source, make_encoder):
    names = tuple(f"label {number}" for number in range(7))
    texts = dict(zip(names, np.eye(7), strict=True))
    teacher = make_encoder("teacher", [np.eye(7)[6]] * 2, texts)
    descending = np.arange(7, 0, -1.0)
    near = descending.copy()
    near[[4, 6]] = near[[6, 4]]
    student = make_encoder("student", [descending, near], texts)
    result = on(make_source([((), None)] * 2), teacher, student, labels=LabelSet(names, ("{}",)))
    assert shares(result, "student") == (0.0, 0.5)


def test_a_student_with_texts_of_its_own_uses_them(source, make_encoder):
    teacher = make_encoder("teacher", SEEN, TEXTS)
    turned = {"cat": TEXTS["dog"], "dog": TEXTS["cat"], "owl": TEXTS["owl"]}
    result = on(source, teacher, make_encoder("student", SEEN, turned))
    assert result.results["student"]["agreement@1"] == 0.25
    assert result.borrowed == {}


def test_a_student_of_texts_borrows_the_teachers_images(source, make_encoder):
    teacher = make_encoder("teacher", SEEN, TEXTS)
    result = on(source, teacher, make_encoder("student", None, TEXTS))
    assert result.results["student"]["agreement@1"] == 1.0
    assert result.borrowed == {"student": "images"}


def test_another_width_cannot_borrow(source, make_encoder):
    teacher = make_encoder("teacher", SEEN, TEXTS)
    result = on(source, teacher, make_encoder("student", [(1, 0)] * 4, None))
    assert result.results["student"] == dict.fromkeys(
        metric.name for metric in metrics_of("agreement")
    )
    assert result.agreement("student", "teacher") is None


def test_no_more_pictures_than_a_reader_looks_at(make_source, make_encoder):
    teacher = make_encoder("teacher", [TEXTS["cat"]] * 40, TEXTS)
    student = make_encoder("student", [TEXTS["dog"]] * 40, TEXTS)
    result = on(make_source([((), None)] * 40), teacher, student)
    assert result.results["student"]["agreement@1"] == 0.0
    assert len(result.disagreements["student"]) == SHOWN


def test_the_report_lists_the_pictures_and_retains_nothing(source, make_encoder):
    teacher = make_encoder("teacher", SEEN, TEXTS)
    student = make_encoder("student", [SEEN[0]] * 4, None)
    entry = EvaluationSet("held_out", "agreement", source, LABELS.names, LABELS.templates)
    report, _ = compare([teacher, student], [entry])
    (found,) = report["sets"]
    assert found["retained"] == {"teacher": None, "student": None}
    assert found["agreement"] == {"teacher": 1.0, "student": 0.5}
    assert found["borrowed"] == {"student": "texts"}
    first = found["disagreements"]["student"][0]
    assert first == {"index": 1, "key": "p1.png", "reference": "dog", "found": "cat"}
    assert headline("agreement", found["results"]["student"]) == ("agreement@1", 0.5)


def test_agreement_needs_a_teacher_and_pictures(source, make_source, make_encoder):
    student = make_encoder("student", SEEN, TEXTS)
    entry = EvaluationSet("a", "agreement", source, LABELS.names, LABELS.templates)
    with pytest.raises(RecipeError, match="memory: agreement needs a teacher"):
        measure([student], entry)
    check_set(entry)
    with pytest.raises(DataError, match="memory: there are no pictures"):
        check_set(EvaluationSet("a", "agreement", make_source([]), LABELS.names))
