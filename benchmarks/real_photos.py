"""Cache, train, evaluate and export on real photographs, with and without a teacher.

    python -m benchmarks.real_photos --data DIR --teacher DIR

The data folder holds ``flickr8k/captions_train.csv``, ``flickr8k/captions_val.csv``, their pictures
in ``flickr8k/images``, and class folders in ``caltech33/val``. The script trains two students from
the same initial weights for the same number of steps: one with the teacher, one on the captions
alone. The table goes between the ``real_photos`` marks in ``docs/benchmarks.md``. If the script
runs again, it skips what is finished.
"""

import argparse
import datetime
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.photographs import RECALLS, evaluation_sets, student, table
from distill.basis.progress import make_console
from distill.evaluate.compare import compare
from distill.evaluate.encoder import BundleEncoder, Encoder, StudentEncoder
from distill.evaluate.report.write import print_report, write_report
from distill.evaluate.teachers import EnsembleEncoder
from distill.recipe.config import RunConfig
from distill.recipe.load import resolve
from distill.run.opening import student_folder
from distill.run.pipeline import export, run
from distill.run.project import Project
from export.runtime.model import EdgeModel
from students.model import load_student

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the photographs")
    parser.add_argument("--teacher", type=Path, required=True, help="folder with the teacher")
    parser.add_argument("--out", type=Path, default=Path("runs/real_photos"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--backbone", default="resnet10t")
    options = parser.parse_args()
    started = time.perf_counter()
    distilled = recipe(options, "student", {"kl_divergence": 1.0, "embedding_alignment": 5.0})
    alone = recipe(options, "student_alone", {"contrastive": 1.0}, teacher="absent")
    run(distilled, stages=("cache", "train"))
    run(alone, stages=("train",))
    bundle = export(distilled.folder)
    report = measure(options.out, distilled, alone, bundle)
    minutes = (time.perf_counter() - started) / 60
    write_table(report, minutes)
    make_console().print(f"{minutes:.1f} minutes; the table is in {DOCUMENT}")


def recipe(
    options: argparse.Namespace, name: str, losses: dict[str, float], *, teacher: str = "cached"
) -> RunConfig:
    """Return the recipe of one of the two students."""
    values: dict[str, Any] = {
        "output": str(options.out / name),
        "teacher": {"model": str(options.teacher)},
        "student": student(
            options.teacher, backbone=options.backbone, image_size=options.image_size
        ),
        "data": {"train": table(options.data / "flickr8k" / "captions_train.csv"), "workers": 1},
        "views": {"scale": [0.6, 1.0]},
        "cache": {"views": 2},
        "losses": losses,
        "train": {
            "teacher": teacher,
            "batch_size": options.batch_size,
            "steps": options.steps,
            "learning_rate": 1e-3,
            "warmup_steps": options.steps // 10,
            "validate_every": max(options.steps // 4, 1),
        },
        "evaluate": evaluation_sets(options.data),
    }
    return resolve(values, where="benchmark")


def measure(out: Path, distilled: RunConfig, alone: RunConfig, bundle: Path) -> dict[str, Any]:
    """Measure the teacher, both students and the bundle, and write the report."""
    project = Project(distilled)
    teacher = project.teacher
    if teacher is None:
        raise RuntimeError("the recipe names a teacher, but there is none")
    learnt = StudentEncoder(load_student(student_folder(distilled.folder, "last")))
    encoders: list[Encoder] = [
        EnsembleEncoder(teacher),
        learnt,
        StudentEncoder(load_student(student_folder(alone.folder, "last")), name="student_alone"),
        BundleEncoder(
            EdgeModel.load(bundle),
            parameters=learnt.parameters,
        ),
    ]
    report, _ = compare(encoders, project.evaluation_sets)
    write_report(
        report,
        out,
        history=distilled.folder / "metrics.jsonl",
        notes=["The teacher is not a CLIP model: see the description of the data."],
        title="Real photographs",
    )
    print_report(report, make_console())
    return report


def write_table(report: dict[str, Any], minutes: float) -> None:
    """Write the numbers between the marks of the document."""
    retrieval, zero_shot = report["sets"]
    today, cores = datetime.date.today(), f"{os.cpu_count()} cores ({platform.machine()})"
    lines = [
        f"{today}, {cores}, {minutes:.0f} minutes:",
        "",
        f"    python -m benchmarks.real_photos {shlex.join(sys.argv[1:])}",
        "",
        f"Per cent; retrieval on {retrieval['samples']} pictures, top-1 on {zero_shot['samples']}.",
        "",
        "| model | parameters | " + " | ".join(RECALLS.values()) + " | top-1 | agreement |",
        "|---|" + "---:|" * (len(RECALLS) + 3),
    ]
    for model in report["models"]:
        name = model["name"]
        numbers = [retrieval["results"][name][key] for key in RECALLS]
        numbers += [zero_shot["results"][name]["top1"], zero_shot["agreement"][name]]
        cells = [f"{model['parameters']:,}", *(f"{100 * number:.1f}" for number in numbers)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    before, rest = DOCUMENT.read_text().split("<!-- real_photos -->\n")
    after = rest.split("<!-- /real_photos -->")[1]
    body = "\n".join(lines)
    DOCUMENT.write_text(f"{before}<!-- real_photos -->\n{body}\n<!-- /real_photos -->{after}")


if __name__ == "__main__":
    main()
