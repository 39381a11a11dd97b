"""The report's files, and the table for the terminal."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from distill.evaluate.metrics import metrics_of
from distill.evaluate.report.curves import draw_curves, read_history, thin
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.evaluate.report.columns import (
        format_bytes,
        format_count,
        format_percent,
        meaning_of,
    )
    from distill.evaluate.report.write import print_report, render_page, write_report

MODELS = ["teacher", "student", "student_alone"]
ZERO_SHOT, RETRIEVAL = metrics_of("zero_shot"), metrics_of("retrieval")


@pytest.fixture
def report():
    def numbers(metrics, value):
        return dict.fromkeys((metric.name for metric in metrics), value)

    return {
        "format": 1,
        "models": [
            {"name": "teacher", "parameters": 427_616_513, "bytes": 1_710_540_580},
            {"name": "student", "parameters": 219_000, "bytes": 880_123},
            {"name": "student_alone", "parameters": None, "bytes": None},
        ],
        "sets": [
            {
                "name": name,
                "task": task,
                "samples": 1440,
                "results": {
                    "teacher": numbers(metrics, 0.9961),
                    "student": numbers(metrics, 0.8642),
                    "student_alone": numbers(metrics, None),
                },
                "retained": {"teacher": 1.0, "student": 0.8676, "student_alone": None},
                "agreement": {"teacher": 1.0, "student": 0.8123, "student_alone": None},
            }
            for name, task, metrics in (
                ("trained", "zero_shot", ZERO_SHOT),
                ("captions", "retrieval", RETRIEVAL),
            )
        ],
    }


@pytest.fixture
def history(tmp_path):
    lines = []
    for step in range(10, 210, 10):
        lines.append({"step": step, "loss": 100.0 / step, "terms": {"contrastive": 1.0}})
        if step % 100 == 0:
            best = {"set": "trained", "metric": "top1", "value": step / 400}
            lines.append({"step": step, "validation": {"loss": 2.0, "headline": best}})
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"step": 210, "lo')
    return path


class Tables(HTMLParser):
    """Collects the rows of all tables, the legend, and everything an element would load."""

    def __init__(self):
        super().__init__()
        self.tables, self.loads, self._open = [], [], False
        self.legend, self._term, self._part = {}, "", ""

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "srcset", "data")]
        self.loads += [
            value for name, value in attrs if name == "href" and not value.startswith("#")
        ]
        if tag in ("script", "link", "img", "iframe"):
            self.loads.append(tag)
        self._part = tag
        if tag == "dt":
            self._term = ""
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._open = True

    def handle_endtag(self, tag):
        self._part = ""
        if tag in ("td", "th"):
            self._open = False

    def handle_data(self, data):
        if self._part == "dt":
            self._term = data
        elif self._part == "dd":
            self.legend[self._term] = data
        if self._open:
            self.tables[-1][-1][-1] += data


def read_page(page):
    tables = Tables()
    tables.feed(page)
    return tables


def test_both_files_are_written_whole(report, history, tmp_path):
    write_report(report, tmp_path, history=history, notes=["One."], title="A run")
    assert json.loads((tmp_path / "report.json").read_text()) == report
    page = (tmp_path / "report.html").read_text()
    assert "<title>A run</title>" in page
    assert "<li>One.</li>" in page
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"metrics.jsonl", "report.json", "report.html"}


def test_a_report_is_written_over_an_older_one(report, tmp_path):
    (tmp_path / "report.json").write_text("old")
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["format"] == 1


def test_numbers_that_are_not_finite_become_null(report, tmp_path):
    report["sets"][0]["results"]["student"]["top1"] = float("nan")
    write_report(report, tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["sets"][0]["results"]["student"]["top1"] is None


def test_the_page_shows_every_number_formatted(report):
    # Each set is shown twice: with models in rows, and with models in columns for narrow screens.
    wide, narrow, other_wide, _ = read_page(render_page(report)).tables
    titles, count = [metric.title for metric in ZERO_SHOT], len(ZERO_SHOT)
    assert wide == [
        ["model", *titles, "retained", "agreement", "parameters", "size"],
        ["teacher", *["99.6"] * count, "100.0", "100.0", "428 M", "1.71 GB"],
        ["student", *["86.4"] * count, "86.8", "81.2", "219 k", "880 kB"],
        ["student_alone", *["–"] * count, "–", "–", "–", "–"],
    ]
    assert titles[:3] == ["top-1", "top-5", "per class"]
    assert [list(row) for row in zip(*narrow, strict=True)] == wide
    assert other_wide[0][1:-4] == [metric.title for metric in RETRIEVAL]


def test_numbers_go_to_their_column_by_name(report):
    found = report["sets"][0]["results"]["student"]
    found["top1"], found["top5"] = 0.25, 0.75
    report["sets"][0]["results"]["student"] = dict(reversed(found.items()))
    wide = read_page(render_page(report)).tables[0]
    row = dict(zip(wide[0], wide[2], strict=True))
    assert (row["model"], row["top-1"], row["top-5"]) == ("student", "25.0", "75.0")


def test_a_number_without_a_row_keeps_its_name_and_a_missing_one_is_a_dash(report):
    for found in report["sets"][0]["results"].values():
        found["of_another_version"] = 0.5
    del report["sets"][0]["results"]["student"]["top5"]
    wide = read_page(render_page(report)).tables[0]
    row = dict(zip(wide[0], wide[2], strict=True))
    assert (row["top-5"], row["of_another_version"]) == ("–", "50.0")


def test_the_legend_explains_the_columns_that_are_shown(report):
    legend = read_page(render_page(report)).legend
    for metric in (*ZERO_SHOT, *RETRIEVAL):
        assert legend[metric.title] == meaning_of(metric)
    assert {"retained", "agreement"} <= set(legend)
    assert "top-1 in zero-shot classification, mean R in retrieval" in legend["retained"]
    report["sets"] = report["sets"][:1]
    absent = {metric.title for metric in RETRIEVAL if metric not in ZERO_SHOT}
    assert not absent & set(read_page(render_page(report)).legend)
    report["sets"] = []
    assert "<dl>" not in render_page(report)


def test_agreement_has_no_shares_of_its_own(report):
    report["sets"][0]["task"] = "agreement"
    report["sets"] = report["sets"][:1]
    page = read_page(render_page(report))
    assert not {"retained", "agreement"} & {*page.tables[0][0], *page.legend}


@pytest.mark.parametrize(
    ("more_is_better", "meaning"),
    [(True, "How far off it is."), (False, "How far off it is. Less is better.")],
)
def test_the_legend_says_when_less_is_better(more_is_better, meaning):
    row = replace(ZERO_SHOT[0], meaning="How far off it is.", more_is_better=more_is_better)
    assert meaning_of(row) == meaning


def test_the_page_loads_nothing(report, history):
    page = render_page(report, curves=draw_curves(read_history(history)))
    assert read_page(page).loads == []
    assert "://" not in page
    assert "@import" not in page


def test_names_and_notes_are_escaped(report):
    report["models"][1]["name"] = "<b>"
    for entry in report["sets"]:
        for values in (entry["results"], entry["retained"], entry["agreement"]):
            values["<b>"] = values.pop("student")
    page = render_page(report, notes=["a < b"], title="x & y")
    assert "&lt;b&gt;" in page
    assert "a &lt; b" in page
    assert "x &amp; y" in page


def test_curves_take_the_colours_of_the_page(history):
    curves = draw_curves(read_history(history))
    assert [caption for caption, _ in curves] == ["Loss", "top-1 on trained, in %, while training"]
    ids = []
    for _, svg in curves:
        assert svg.startswith("<svg")
        assert "var(--first)" in svg
        assert ">step</text>" in svg
        assert not re.findall(r"(?:fill|stroke): #(?:0[1-4]){3}", svg)
        targets = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
        defined = set(re.findall(r'\bid="([^"]+)"', svg))
        assert {first or second for first, second in targets} <= defined
        ids += defined
    assert len(ids) == len(set(ids))
    assert "validation" in curves[0][1]
    assert draw_curves(read_history(history)) == curves


def test_the_last_line_of_a_repeated_step_counts(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 1, "loss": 9}', '{"step": 2, "loss": NaN}', "[]", "broken"]
    path.write_text("\n".join([*lines, '{"step": 3, "loss": 7}', '{"step": 1, "loss": 8}']))
    assert read_history(path).loss == [(1, 8.0), (3, 7.0)]


def test_a_run_without_points_has_no_curve(report, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 9}\n')
    assert draw_curves(read_history(path)) == []
    write_report(report, tmp_path, history=tmp_path / "missing.jsonl")
    assert "<svg" not in (tmp_path / "report.html").read_text()


def test_long_runs_are_drawn_as_means_of_windows():
    points = [(step, float(step % 2)) for step in range(10_000)]
    drawn = thin(points)
    assert len(drawn) == 400
    assert {value for _, value in drawn} <= {0.48, 0.52, 0.5}
    assert drawn[-1][0] == 9_999
    assert thin(points[:300]) == points[:300]


def test_the_table_fits_80_columns(report):
    text = io.StringIO()
    print_report(report, Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert any(line.split() == ["teacher", "428", "M", "1.71", "GB"] for line in lines)
    student = [line.split() for line in lines if line.split()[:1] == ["student"]]
    assert student[1:] == [
        ["student", *["86.4"] * len(metrics), "86.8", "81.2"] for metrics in (ZERO_SHOT, RETRIEVAL)
    ]


@pytest.mark.parametrize(
    ("value", "count", "size"),
    [
        (None, "–", "–"),
        (0, "0", "0 B"),
        (999, "999", "999 B"),
        (9_600, "9.60 k", "9.60 kB"),
        (96_000, "96.0 k", "96.0 kB"),
        (427_616_513, "428 M", "428 MB"),
        (1_710_540_580, "1.71 G", "1.71 GB"),
    ],
)
def test_counts_and_sizes_for_people(value, count, size):
    assert format_count(value) == count
    assert format_bytes(value) == size


def test_shares_for_people():
    assert [format_percent(share) for share in (None, 0.0, 0.98649, 1.0)] == [
        "–",
        "0.0",
        "98.6",
        "100.0",
    ]
