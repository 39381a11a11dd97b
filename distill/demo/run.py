"""The demo: what a teacher is worth if there are few captions and many pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distill.basis.files import is_temporary, write_whole
from distill.data.sample import open_image
from distill.data.scenes import PROMPTS, Split, class_names, render_scenes
from distill.data.tables.table import open_table
from distill.evaluate.compare import compare
from distill.evaluate.encoder import Encoder, StudentEncoder, TeacherEncoder
from distill.evaluate.report.write import print_report, write_report
from distill.recipe.config import RunConfig
from distill.recipe.load import load_recipe
from distill.run.opening import student_folder
from distill.run.pipeline import export, run
from distill.run.project import Project
from distill.teacher.load import load_teacher
from export.runtime.errors import RunError
from export.runtime.model import EdgeModel
from students.model import load_student

_CAPTIONED = 400
_PICTURES = 4_000
_IMAGE_SIZE = 48
_SHOWN = 8
# The teacher's pictures have seed 0. With seeds of their own, no model has seen the test pictures.
TRAIN_SEED = 10
_NEW_PICTURES: dict[str, tuple[Split, int, int]] = {
    "trained_pairs": ("train", 720, 11),
    "held_out_pairs": ("held_out", 400, 12),
}
_TEACHER = (
    "The teacher is a small CLIPModel trained on such pictures, not a CLIP of the real world."
)
_CLASSES = (
    "All 80 pairs of colour and shape are candidates. No model was trained on the held-out pairs."
)
_STUDENTS = (
    f"Both students had the same start, the same number of steps and the same {_CAPTIONED} "
    f"captioned pictures. The student with the teacher also had {_PICTURES - _CAPTIONED:,} "
    "pictures without captions."
)


@dataclass(frozen=True)
class _Tables:
    """Tables of pictures: to train with and without the teacher, and to measure on, by name."""

    many: Path
    captioned: Path
    measured: dict[str, Path]


def run_demo(out: Path, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run the whole demo in a folder: scenes, cache, two students, report, bundle.

    A second run skips what is finished. ``overrides`` change the recipes of both students.

    Returns:
        The content of ``report.json``.

    Raises:
        RunError: ``out`` is not a folder, or holds something other than a demo.
    """
    console = Console(highlight=False)
    _claim(out)
    _introduce(console)
    console.rule("1 · pictures")
    tables = _render(out / "scenes")
    with resources.as_file(resources.files("distill.demo")) as package:
        distilled = _recipe(package, out / "student", tables, overrides)
        alone = _recipe(package, out / "student_alone", tables, overrides, alone=True)
        console.rule("2 · the student with the teacher")
        run(distilled, stages=("cache", "train"))
        console.rule("3 · the same student without the teacher")
        run(alone, stages=("train",))
        console.rule("4 · evaluation on new pictures")
        report = _evaluate(out, distilled, alone)
    print_report(report, console)
    console.rule("5 · export, and classification without torch")
    bundle = export(distilled.folder, out=out / "bundle")
    _classify(bundle, tables, console)
    _conclude(report, out, console)
    return report


def _claim(out: Path) -> None:
    mark = out / "demo.json"
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: it is not a folder; choose another --out")
    held = [path for path in out.iterdir() if not is_temporary(path.name)] if out.exists() else []
    if held and mark not in held:
        raise RunError(f"{out}: the folder holds something other than a demo; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(mark, json.dumps({"demo": 1}) + "\n")


def _introduce(console: Console) -> None:
    console.print(
        f"The pictures are procedural: bright shapes on dark backgrounds. {_TEACHER} Two students "
        f"with the same start and number of steps get the same {_CAPTIONED} captioned pictures. "
        f"The student with the teacher also gets {_PICTURES - _CAPTIONED:,} pictures without "
        "captions."
    )


def _render(folder: Path) -> _Tables:
    measured = {
        name: render_scenes(
            folder / name, count=count, seed=seed, image_size=_IMAGE_SIZE, split=split
        )
        for name, (split, count, seed) in _NEW_PICTURES.items()
    }
    return _Tables(
        many=render_scenes(
            folder / "train",
            count=_PICTURES,
            seed=TRAIN_SEED,
            image_size=_IMAGE_SIZE,
            captioned=_CAPTIONED,
        ),
        captioned=render_scenes(
            folder / "captioned", count=_CAPTIONED, seed=TRAIN_SEED, image_size=_IMAGE_SIZE
        ),
        measured=measured,
    )


def _recipe(
    package: Path, output: Path, tables: _Tables, more: Sequence[str], *, alone: bool = False
) -> RunConfig:
    """Return the recipe of one of the two students."""
    measured = {
        name: {"kind": "table", "path": str(path)} for name, path in tables.measured.items()
    }
    classes = {"task": "zero_shot", "classes": class_names("all"), "templates": PROMPTS}
    values = {
        "output": str(output),
        "teacher.model": str(package / "teacher"),
        "student.text.tokenizer": str(package / "teacher"),
        "data.train": {"kind": "table", "path": str(tables.captioned if alone else tables.many)},
        "data.validation": measured["trained_pairs"],
        "evaluate": [{"name": name, "data": data, **classes} for name, data in measured.items()],
    }
    if alone:
        values |= {"train.teacher": "absent", "losses": {"contrastive": 1.0}}
    overrides = [f"{path}={json.dumps(value)}" for path, value in values.items()]
    return load_recipe(package / "recipe.yaml", overrides=[*overrides, *more])


def _evaluate(out: Path, distilled: RunConfig, alone: RunConfig) -> dict[str, Any]:
    """Measure the teacher and both students on the same new pictures."""
    folders = {
        "student": student_folder(distilled.folder, "last"),
        "student_alone": student_folder(alone.folder, "last"),
    }
    entry = distilled.teachers[0]
    encoders: list[Encoder] = [
        TeacherEncoder(load_teacher(entry)),
        *(StudentEncoder(load_student(path), name=name) for name, path in folders.items()),
    ]
    report, _ = compare(encoders, Project(distilled).evaluation_sets)
    write_report(
        report,
        out,
        history=distilled.folder / "metrics.jsonl",
        notes=[
            "The pictures are procedural: coloured shapes on dark backgrounds.",
            _TEACHER,
            _STUDENTS,
            _CLASSES,
        ],
        title="clip-distill demo",
    )
    return report


def _classify(bundle: Path, tables: _Tables, console: Console) -> None:
    """Print a few held-out pictures and what the bundle says about them."""
    model = EdgeModel.load(bundle)
    source = open_table(tables.measured["held_out_pairs"])
    labels = class_names("all")
    table = Table("picture", "is", "the bundle says", "probability", box=None)
    for number in range(_SHOWN):
        sample = source[number]
        label, probability = model.classify(open_image(sample), labels)[0]
        table.add_row(sample.key, sample.label, label, f"{probability:.0%}")
    console.print(table)


def _conclude(report: dict[str, Any], out: Path, console: Console) -> None:
    """Print what the teacher is worth, in points of top-1 accuracy."""
    for entry in report["sets"]:
        top1 = {name: 100 * (result["top1"] or 0) for name, result in entry["results"].items()}
        gain = top1["student"] - top1["student_alone"]
        console.print(
            f"{entry['name']}: teacher {top1['teacher']:.1f} %, student {top1['student']:.1f} %, "
            f"alone {top1['student_alone']:.1f} %; the teacher is worth {gain:+.1f} points"
        )
    parameters = {model["name"]: model["parameters"] for model in report["models"]}
    share = parameters["student"] / parameters["teacher"]
    console.print(
        f"The student has {share:.0%} of the teacher's {parameters['teacher']:,} weights."
    )
    console.print(f"Report: {out / 'report.html'}   Bundle: {out / 'bundle'}")
