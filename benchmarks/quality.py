"""Which loss makes the better student: at equal steps, and in equal seconds.

    python -m benchmarks.quality --data DIR --teacher DIR

DIR of --data is as in ``benchmarks/real_photos.py``. The same student (same initial weights, order
of samples and views) learns under the contrastive loss alone, open_clip's distillation loss (its
``create_loss``), each preset, and the default preset with projections that start from a ridge
regression. The first tables stop after the same steps, and give open_clip's loss the cached
outputs of the teacher. The next one stops after the same seconds, the building of the cache
counted, and open_clip's loss has its teacher live, as open_clip does it. The last one leaves out
each term of the default preset.

Every finished run is a line of --results and is not run again: what was cut off goes on. The
tables go between the marks ``quality`` of ``docs/benchmarks.md``.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.open_clip_loss import OpenClipLoss
from benchmarks.photographs import RECALLS, evaluation_sets, student, table
from distill.cache_stage import build_caches
from distill.config import RunConfig
from distill.evaluate.compare import measure
from distill.evaluate.encoder import Encoder, StudentEncoder
from distill.evaluate.ensemble import EnsembleEncoder
from distill.losses import WeightedLoss
from distill.pipeline import open_run
from distill.presets import PRESETS
from distill.progress import make_console
from distill.project import Project
from distill.recipe import resolve
from distill.run_folder import RunFolder
from distill.train.processes import start_accelerator
from distill.train.stage import train_stage
from students.model import load_student

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
RESULTS = Path(__file__).parent / "results" / "quality.jsonl"
# A ResNet-10 with half of its channels, so that the whole table is a matter of hours.
NARROW = {"stem_width": 16, "channels": [32, 64, 128, 256]}
IMAGE_SIZE = 64
# Steps that say how many fit into the seconds; the first ones are slower.
CALIBRATION_STEPS, WARM_STEPS = 14, 4
COLUMNS = {**RECALLS, "mean_recall": "mean recall", "top1": "top-1"}


@dataclass(frozen=True)
class Method:
    """One way to train the student."""

    name: str
    losses: Mapping[str, Any] | str
    teacher: str = "cached"
    projection_start: str = "random"
    open_clip: bool = False


OPEN_CLIP = {"contrastive": 1.0, "kl_divergence": 1.0}
METHODS = (
    Method("contrastive alone", {"contrastive": 1.0}, teacher="absent"),
    Method("open_clip's loss", OPEN_CLIP, open_clip=True),
    Method("open_clip's, ridge start", OPEN_CLIP, projection_start="ridge", open_clip=True),
    *(Method(f"preset {name}", name) for name in PRESETS),
    Method("default, ridge start", "default", projection_start="ridge"),
)


# What the default preset is without each of its terms, at the greatest number of steps.
ABLATIONS = tuple(
    Method(f"without {term}", {"preset": "default", term: 0}, projection_start="ridge")
    for term in PRESETS["default"].terms
)


class MethodProject(Project):
    """The project of a method's recipe, with open_clip's loss where the method asks for it."""

    def __init__(self, config: RunConfig, method: Method) -> None:
        """Take the recipe and the method that it is for."""
        super().__init__(config)
        self._method = method

    @cached_property
    def loss(self) -> WeightedLoss:
        """The loss of the method."""
        if self._method.open_clip:
            return OpenClipLoss()
        return super().loss


class Results:
    """Finished runs, a line each, found by all that decides about their numbers."""

    def __init__(self, path: Path) -> None:
        """Read what is there."""
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def find(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the line of this key, or None."""
        plain = json.loads(json.dumps(key))
        return next((line for line in self.lines if line["key"] == plain), None)

    def add(self, key: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Write a line at once, so that nothing finished is lost."""
        line: dict[str, Any] = json.loads(json.dumps({"key": key, **values}))
        self.lines.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the teacher")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--steps", type=int, nargs="*", default=[100, 400])
    parser.add_argument("--seconds", type=float, nargs="*", default=[300.0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", help="beginnings of their names; all unless given")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--views-in-seconds", type=int, default=1, help="each costs time there")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Results(options.results)
    chosen = [method for method in METHODS if _chosen(method, options.methods)]
    ablations = [method for method in ABLATIONS if _chosen(method, options.methods)]
    longest = max(options.steps, default=0)
    for seed in options.seeds:
        for steps in options.steps:
            for method in [*chosen, *(ablations if steps == longest else [])]:
                equal_steps(options, results, method, seed=seed, steps=steps)
    for seed in options.seeds:
        for seconds in options.seconds:
            for method in chosen:
                # A live teacher has no cache to start a projection from.
                if not (method.open_clip and method.projection_start == "ridge"):
                    equal_seconds(in_seconds(options), results, method, seed=seed, seconds=seconds)
    write_tables(options, results)
    make_console().print(f"the tables are in {DOCUMENT}, the runs in {options.results}")


def in_seconds(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options of the table at equal seconds."""
    return argparse.Namespace(**{**vars(options), "views": options.views_in_seconds})


def _chosen(method: Method, beginnings: Sequence[str] | None) -> bool:
    return not beginnings or any(method.name.startswith(beginning) for beginning in beginnings)


def recipe(
    options: argparse.Namespace, method: Method, name: str, *, seed: int, steps: int
) -> RunConfig:
    """Return the recipe of one run; the cache is the same for all of them."""
    return resolve(
        {
            "seed": seed,
            "output": str(options.out / name),
            "teacher": {"model": str(options.teacher)},
            "student": {
                **student(
                    options.teacher, backbone="resnet10t", image_size=IMAGE_SIZE, arguments=NARROW
                ),
                "projection_start": method.projection_start,
            },
            "data": {
                "train": table(options.data / "flickr8k" / "captions_train.csv"),
                "workers": 0,
            },
            # Few of these captions say left or right.
            "views": {"scale": [0.6, 1.0], "flip": True, "seed": 0},
            "cache": {
                "views": options.views,
                "folder": str(options.out / f"cache-{options.views}"),
            },
            "losses": method.losses,
            "train": {
                "teacher": method.teacher,
                "batch_size": options.batch_size,
                "steps": steps,
                "learning_rate": options.learning_rate,
                "precision": options.precision,
                "warmup_steps": max(steps // 10, 1),
                "log_every": 1,
                "save_every": steps,
                "validate_every": steps,
                "validation_samples": 1,
            },
            "evaluate": evaluation_sets(options.data),
        },
        where="benchmark",
    )


def key_of(
    options: argparse.Namespace, method: Method, *, seed: int, **length: float
) -> dict[str, Any]:
    """Return all that decides about the numbers of a run, the preset's present terms included."""
    terms = recipe(options, method, "key", seed=seed, steps=1).terms
    names = ("batch_size", "learning_rate", "precision", "views", "threads")
    return {
        "method": method.name,
        "seed": seed,
        **length,
        "terms": {
            name: [term.weight, term.schedule, term.end, term.arguments, term.options]
            for name, term in terms.items()
        },
        **{name: getattr(options, name) for name in names},
    }


def equal_steps(
    options: argparse.Namespace, results: Results, method: Method, *, seed: int, steps: int
) -> dict[str, Any]:
    """Train and measure one student of the first table, unless that is done."""
    key = key_of(options, method, seed=seed, steps=steps)
    if (line := results.find(key)) is not None:
        return line
    config = recipe(options, method, "run", seed=seed, steps=steps)
    scores, seconds = train_and_measure(config, method)
    return results.add(key, {"scores": scores, "seconds": round(seconds, 1)})


def equal_seconds(
    options: argparse.Namespace, results: Results, method: Method, *, seed: int, seconds: float
) -> dict[str, Any]:
    """Train and measure one student of the second table, unless that is done."""
    key = key_of(options, method, seed=seed, seconds=seconds)
    if (line := results.find(key)) is not None:
        return line
    waited = 0.0
    if method.open_clip:
        method = replace(method, teacher="live", projection_start="random")
    elif method.teacher == "cached":
        waited = cache_seconds(options, results, method)
    trial = recipe(options, method, "calibration", seed=seed, steps=CALIBRATION_STEPS)
    at = train(trial, method)
    pace = (at[-1] - at[WARM_STEPS - 1]) / (CALIBRATION_STEPS - WARM_STEPS)
    # What comes before the steps, such as the ridge regression, is waited for as well.
    before = at[0] - pace
    steps = max(1, int((seconds - waited - before) / pace))
    config = recipe(options, method, "run", seed=seed, steps=steps)
    scores, trained = train_and_measure(config, method)
    spent = {"seconds": round(waited + trained, 1), "cache_seconds": waited, "steps": steps}
    return results.add(key, {"scores": scores, **spent})


def cache_seconds(options: argparse.Namespace, results: Results, method: Method) -> float:
    """Build the cache anew, once for all runs, and return how long that took."""
    key = {"cache": True, "views": options.views, "teacher": options.teacher.name}
    if (line := results.find(key)) is None:
        shutil.rmtree(options.out / f"cache-{options.views}", ignore_errors=True)
        config = recipe(options, method, "building", seed=0, steps=1)
        project = Project(config)
        folder = open_run(project)
        started = time.perf_counter()
        build_caches(project, folder)
        line = results.add(key, {"seconds": round(time.perf_counter() - started, 1)})
        shutil.rmtree(config.folder)
    return float(line["seconds"])


def train(config: RunConfig, method: Method) -> list[float]:
    """Train from the start and return the seconds since it began at the end of each step."""
    shutil.rmtree(config.folder, ignore_errors=True)
    accelerator = start_accelerator(device="cpu", precision=config.train.precision)
    project = MethodProject(config, method)
    folder: RunFolder = open_run(project)
    if config.train.teacher == "cached":
        build_caches(project, folder)
    started = time.perf_counter()
    train_stage(project, folder, accelerator)
    # Validation and saving come after the last line, and are none of the training's seconds.
    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").open()]
    steps = [line["seconds"] for line in lines if "loss" in line]
    after = time.perf_counter() - started - steps[-1]
    make_console().print(
        f"{method.name}: {steps[-1]:.0f} s in {len(steps)} steps, {after:.0f} more"
    )
    return steps


def train_and_measure(config: RunConfig, method: Method) -> tuple[dict[str, float], float]:
    """Return a student's scores, and the seconds that its training took."""
    seconds = train(config, method)[-1]
    encoder = StudentEncoder(load_student(config.folder / "student"))
    scores = measure_encoder(encoder, config)
    shutil.rmtree(config.folder)
    return scores, seconds


def measure_encoder(encoder: Encoder, config: RunConfig) -> dict[str, float]:
    """Return the scores of the columns."""
    scores: dict[str, float] = {}
    for entry in Project(config).evaluation_sets:
        metrics = measure([encoder], entry).results[encoder.name]
        scores |= {name: float(value) for name, value in metrics.items() if value is not None}
    return {name: scores[name] for name in COLUMNS}


def teacher_scores(options: argparse.Namespace, results: Results) -> dict[str, float]:
    """Return the teacher's own scores, measured once."""
    key = {"teacher": options.teacher.name}
    if (line := results.find(key)) is None:
        config = recipe(options, METHODS[1], "teacher", seed=0, steps=1)
        teacher = Project(config).teacher
        if teacher is None:
            raise RuntimeError("the recipe names a teacher, but there is none")
        line = results.add(key, {"scores": measure_encoder(EnsembleEncoder(teacher), config)})
    return {name: float(line["scores"][name]) for name in COLUMNS}


def write_tables(options: argparse.Namespace, results: Results) -> None:
    """Put all tables, with every run that there is, between the marks of the document."""
    teacher = teacher_scores(options, results)
    today, cores = datetime.date.today(), f"{os.cpu_count()} cores ({platform.machine()})"
    text = [f"{today}, {cores}, seeds {', '.join(map(str, options.seeds))}:", ""]
    text += [f"    python -m benchmarks.quality {shlex.join(sys.argv[1:])}", ""]
    of_default = METHODS[-1]
    tables = [("steps", steps, METHODS) for steps in options.steps]
    tables += [("seconds", seconds, METHODS) for seconds in options.seconds]
    tables += [("steps", steps, (of_default, *ABLATIONS)) for steps in options.steps[-1:]]
    for unit, length, methods in tables:
        chosen = in_seconds(options) if unit == "seconds" else options
        text += [f"After {length:g} {unit}, per cent (mean ± standard deviation):", ""]
        against = METHODS[1] if methods is METHODS else of_default
        text += table_lines(
            chosen, results, methods, teacher, against=against, unit=unit, length=length
        )
        text.append("")
    before, rest = DOCUMENT.read_text().split("<!-- quality -->\n")
    after = rest.split("<!-- /quality -->")[1]
    body = "\n".join(text)
    DOCUMENT.write_text(f"{before}<!-- quality -->\n{body}<!-- /quality -->{after}")


def table_lines(
    options: argparse.Namespace,
    results: Results,
    methods: Sequence[Method],
    teacher: Mapping[str, float],
    *,
    against: Method,
    unit: str,
    length: float,
) -> list[str]:
    """Return one table in Markdown; mean recalls are also given as multiples of ``against``'s."""
    more = ["of teacher's", f"× {against.name}"] + (["steps"] if unit == "seconds" else [])
    lines = ["| method | " + " | ".join([*COLUMNS.values(), *more]) + " |"]
    lines.append("|---|" + "---:|" * (len(COLUMNS) + len(more)))
    runs_of = {
        method.name: [
            line
            for seed in options.seeds
            if (line := results.find(key_of(options, method, seed=seed, **{unit: length})))
        ]
        for method in methods
    }
    recalls = {
        name: statistics.mean(run["scores"]["mean_recall"] for run in runs)
        for name, runs in runs_of.items()
        if runs
    }
    for name, recall in recalls.items():
        runs = runs_of[name]
        cells = [_spread([run["scores"][column] for run in runs]) for column in COLUMNS]
        cells.append(f"{100 * recall / teacher['mean_recall']:.0f} %")
        cells.append(f"{recall / recalls[against.name]:.2f}" if against.name in recalls else "–")
        if unit == "seconds":
            cells.append(f"{statistics.mean(run['steps'] for run in runs):.0f}")
        missing = "" if len(runs) == len(options.seeds) else f" ({len(runs)} of the seeds)"
        lines.append(f"| {name}{missing} | " + " | ".join(cells) + " |")
    cells = [f"{100 * teacher[name]:.1f}" for name in COLUMNS] + ["100 %"] + ["–"] * (len(more) - 1)
    return [*lines, "| teacher | " + " | ".join(cells) + " |"]


def _spread(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f}"


if __name__ == "__main__":
    main()
