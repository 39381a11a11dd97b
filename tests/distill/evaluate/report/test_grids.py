"""Pictures of the report."""

import base64
import io

from PIL import Image

from distill.evaluate.evaluation_set import EvaluationSet
from distill.evaluate.report.grids import SIDE, disagreement_grids
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.evaluate.compare import compare
    from distill.evaluate.report.write import render_page

TEXTS = {"cat": (1, 0), "dog": (0, 1)}


def grids_of(source, make_encoder, *, found):
    teacher = make_encoder("teacher", [TEXTS["cat"]] * len(source), TEXTS)
    student = make_encoder("student", [TEXTS[name] for name in found], None)
    entry = EvaluationSet("held_out", "agreement", source, ("cat", "dog"), ("{}",))
    report, _ = compare([teacher, student], [entry])
    return report, disagreement_grids(report, [entry])


def test_each_picture_is_shown_with_both_labels(make_source, make_encoder):
    source = make_source([((), None)] * 3)
    report, (grid,) = grids_of(source, make_encoder, found=["cat", "dog", "cat"])
    assert grid.title == "Where student and teacher disagree: 1 of 3 pictures"
    (tile,) = grid.tiles
    assert (tile.key, tile.labels) == ("p1.png", (("teacher", "cat"), ("student", "dog")))
    kind, _, content = tile.picture.partition(",")
    assert kind == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert max(image.size) <= SIDE
    page = render_page(report, grids=[grid])
    assert tile.picture in page
    assert grid.title in page
    assert "student: the texts are the teacher" in page


def test_a_model_that_always_agrees_has_no_grid(make_source, make_encoder):
    source = make_source([((), None)] * 2)
    assert grids_of(source, make_encoder, found=["cat", "cat"])[1] == []


def test_pictures_beyond_the_limit_are_counted(make_source, make_encoder):
    source = make_source([((), None)] * 30)
    _, (grid,) = grids_of(source, make_encoder, found=["dog"] * 30)
    assert grid.title == (
        "Where student and teacher disagree: 30 of 30 pictures, the 24 that the teacher is surest "
        "of"
    )
    assert len(grid.tiles) == 24


def test_names_are_escaped(make_source, make_encoder):
    source = make_source([((), None)])
    texts = {"<b>cat</b>": (1, 0), "dog": (0, 1)}
    teacher = make_encoder("teacher", [(1, 0)], texts)
    student = make_encoder("student", [(0, 1)], None)
    entry = EvaluationSet("held_out", "agreement", source, tuple(texts), ("{}",))
    report, _ = compare([teacher, student], [entry])
    page = render_page(report, grids=disagreement_grids(report, [entry]))
    assert "<b>cat</b>" not in page
    assert "&lt;b&gt;cat&lt;/b&gt;" in page
