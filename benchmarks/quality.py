"""Compare losses by the student that they train, at equal steps and at equal seconds.

    python -m benchmarks.quality --data DIR --teacher DIR

The data folder is as in ``benchmarks/real_photos.py``. The same student (same initial weights,
order of samples and views) learns with the contrastive loss alone, open_clip's distillation loss
(its ``create_loss``), each preset, and the default preset with projections initialised by ridge
regression. The first tables stop after the same number of steps and give open_clip's loss the
cached outputs of the teacher. The next table stops after the same number of seconds and gives
open_clip's loss a live teacher, as open_clip does. The last table leaves out one term of the
default preset at a time.

The seconds include everything that a user waits for: building the cache, the ridge regression, the
steps, validation and saving. They are processor seconds of one process with one thread, so other
work on the machine does not count. The script first measures, in turns, the cost of each method per
step and outside the steps. Without a cache, each view of a picture is new.

Each finished run is a line in --results and is not repeated, so an interrupted script continues.
The tables go between the ``quality`` marks in ``docs/benchmarks.md``.
"""

import argparse
import datetime
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
from benchmarks.photographs import evaluation_sets, student, table
from benchmarks.quality_results import COLUMNS, Results, table_lines
from distill.basis.progress import make_console
from distill.evaluate.compare import measure
from distill.evaluate.encoder import Encoder, StudentEncoder
from distill.evaluate.teachers import EnsembleEncoder
from distill.losses.presets import PRESETS
from distill.losses.weighted import WeightedLoss
from distill.recipe.config import RunConfig
from distill.recipe.load import resolve
from distill.run.cache_stage import build_caches
from distill.run.folder import RunFolder
from distill.run.opening import open_run
from distill.run.project import Project
from distill.run.train_stage import train_stage
from distill.train.processes import start_accelerator
from students.model import load_student

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
RESULTS = Path(__file__).parent / "results" / "quality.jsonl"
# A ResNet-10 with half its channels, so the whole table takes hours and not days.
NARROW = {"stem_width": 16, "channels": [32, 64, 128, 256]}
IMAGE_SIZE = 64
# Two short runs of these lengths give the cost of a step and of everything else.
SHORT, LONG = 4, 24
# Views per picture without a cache: a new one each time.
FRESH_VIEWS = 1000


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


# The default preset without each of its terms, at the largest number of steps.
ABLATIONS = tuple(
    Method(f"without {term}", {"preset": "default", term: 0}, projection_start="ridge")
    for term in PRESETS["default"].terms
)


class MethodProject(Project):
    """The project of a method's recipe, with open_clip's loss if the method uses it."""

    def __init__(self, config: RunConfig, method: Method) -> None:
        """Open the project of a recipe for a method."""
        super().__init__(config)
        self._method = method

    @cached_property
    def loss(self) -> WeightedLoss:
        """The loss of the method."""
        if self._method.open_clip:
            return OpenClipLoss()
        return super().loss


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the photographs")
    parser.add_argument("--teacher", type=Path, required=True, help="folder with the teacher")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--steps", type=int, nargs="*", default=[100, 400])
    parser.add_argument("--seconds", type=float, nargs="*", default=[300.0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", help="prefixes of their names; default: all")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument(
        "--views-in-seconds",
        type=int,
        default=1,
        help="views per picture in the cache at equal seconds",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds that measure the cost of a step"
    )
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
            for method in filter(has_seconds, chosen):
                equal_seconds(options, results, method, seed=seed, seconds=seconds)
    write_tables(options, results)
    make_console().print(f"the tables are in {DOCUMENT}, the runs in {options.results}")


def has_seconds(method: Method) -> bool:
    """Return whether a method has a row at equal seconds. A ridge start needs a cache."""
    return not (method.open_clip and method.projection_start == "ridge")


def in_seconds(options: argparse.Namespace, method: Method) -> tuple[argparse.Namespace, Method]:
    """Return options and method for equal seconds, where open_clip has a live teacher."""
    method = replace(method, teacher="live") if method.open_clip else method
    views = options.views_in_seconds if method.teacher == "cached" else FRESH_VIEWS
    return argparse.Namespace(**{**vars(options), "views": views}), method


def _chosen(method: Method, beginnings: Sequence[str] | None) -> bool:
    return not beginnings or any(method.name.startswith(beginning) for beginning in beginnings)


def recipe(
    options: argparse.Namespace, method: Method, name: str, *, seed: int, steps: int
) -> RunConfig:
    """Return the recipe of one run. All runs share the cache."""
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
            # Few of these captions mention left or right.
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
    """Return everything that affects the numbers of a run, including the preset's terms."""
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
    """Train and measure one student at equal steps, unless that run is finished."""
    key = key_of(options, method, seed=seed, steps=steps)
    if (line := results.find(key)) is not None:
        return line
    config = recipe(options, method, "run", seed=seed, steps=steps)
    scores, trained = train_and_measure(config, method)
    return results.add(key, {"scores": scores, "trained": round(trained, 1)})


def equal_seconds(
    options: argparse.Namespace, results: Results, method: Method, *, seed: int, seconds: float
) -> dict[str, Any] | None:
    """Train and measure one student at equal seconds, unless that run is finished."""
    changed, method = in_seconds(options, method)
    key = key_of(changed, method, seed=seed, seconds=seconds)
    if (line := results.find(key)) is not None:
        return line
    cost = costs(options, results)[method.name]
    steps = int((seconds - cost["once"]) / cost["step"])
    if steps < LONG:
        make_console().print(f"{method.name}: {seconds:g} s are not enough for {LONG} steps")
        return None
    config = recipe(changed, method, "run", seed=seed, steps=steps)
    scores, trained = train_and_measure(config, method)
    return results.add(key, {"scores": scores, "steps": steps, "trained": round(trained, 1)})


def costs(options: argparse.Namespace, results: Results) -> dict[str, dict[str, float]]:
    """Return each method's processor seconds per step and of all else, measured in turns."""
    methods = [in_seconds(options, method) for method in METHODS if has_seconds(method)]
    names = ("batch_size", "precision", "views_in_seconds", "threads")
    key = {"costs": [method.name for _, method in methods], "rounds": options.rounds}
    key |= {name: getattr(options, name) for name in names}
    if (line := results.find(key)) is not None:
        return dict(line["costs"])
    rounds: list[dict[str, tuple[float, float, float]]] = []
    for _ in range(options.rounds):
        cache = build_anew(options)
        times: dict[str, tuple[float, float, float]] = {}
        for changed, method in methods:
            short, long = (
                train(recipe(changed, method, "costs", seed=0, steps=steps), method)
                for steps in (SHORT, LONG)
            )
            step = (long - short) / (LONG - SHORT)
            times[method.name] = (step, short - SHORT * step, cache * (method.teacher == "cached"))
        rounds.append(times)
    medians = {
        name: [statistics.median(values) for values in zip(*(r[name] for r in rounds), strict=True)]
        for name in rounds[0]
    }
    found = {
        name: {"step": step, "once": around + cache, "cache": cache}
        for name, (step, around, cache) in medians.items()
    }
    return dict(results.add(key, {"costs": found})["costs"])


def build_anew(options: argparse.Namespace) -> float:
    """Rebuild the cache for equal seconds, and return its processor seconds."""
    started = time.process_time()
    options = argparse.Namespace(**{**vars(options), "views": options.views_in_seconds})
    project = Project(recipe(options, METHODS[1], "building", seed=0, steps=1))
    shutil.rmtree(options.out / f"cache-{options.views}", ignore_errors=True)
    build_caches(project, open_run(project))
    shutil.rmtree(project.config.folder)
    return time.process_time() - started


def train(config: RunConfig, method: Method) -> float:
    """Train from scratch; return the processor seconds, including validation and saving."""
    shutil.rmtree(config.folder, ignore_errors=True)
    started = time.process_time()
    accelerator = start_accelerator(device="cpu", precision=config.train.precision)
    project = MethodProject(config, method)
    folder: RunFolder = open_run(project)
    if config.train.teacher == "cached":
        build_caches(project, folder)
    train_stage(project, folder, accelerator)
    seconds = time.process_time() - started
    make_console().print(f"{method.name}: {seconds:.0f} s in {config.train.steps} steps")
    return seconds


def train_and_measure(config: RunConfig, method: Method) -> tuple[dict[str, float], float]:
    """Return a student's scores and the processor seconds of its training."""
    seconds = train(config, method)
    encoder = StudentEncoder(load_student(config.folder / "student"))
    scores = measure_encoder(encoder, config)
    shutil.rmtree(config.folder)
    return scores, seconds


def measure_encoder(encoder: Encoder, config: RunConfig) -> dict[str, float]:
    """Return the scores for the columns of the table."""
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
    """Write the tables of all finished runs between the marks of the document."""
    teacher = teacher_scores(options, results)
    today, cores = datetime.date.today(), f"{os.cpu_count()} cores ({platform.machine()})"
    text = [f"{today}, {cores}, seeds {', '.join(map(str, options.seeds))}:", ""]
    text += [f"    python -m benchmarks.quality {shlex.join(sys.argv[1:])}", ""]
    default = METHODS[-1]
    tables = [("steps", steps, METHODS, METHODS[1]) for steps in options.steps]
    timed = tuple(filter(has_seconds, METHODS))
    tables += [("seconds", seconds, timed, METHODS[1]) for seconds in options.seconds]
    tables += [("steps", steps, (default, *ABLATIONS), default) for steps in options.steps[-1:]]
    for unit, length, methods, against in tables:
        text += [f"After {length:g} {unit}, per cent (mean ± standard deviation):", ""]
        runs_of = {}
        for method in methods:
            changed = (options, method) if unit == "steps" else in_seconds(options, method)
            keys = [key_of(*changed, seed=seed, **{unit: length}) for seed in options.seeds]
            runs_of[method.name] = [line for key in keys if (line := results.find(key))]
        text += table_lines(runs_of, teacher, against=against.name, seeds=len(options.seeds))
        text.append("")
    before, rest = DOCUMENT.read_text().split("<!-- quality -->\n")
    after = rest.split("<!-- /quality -->")[1]
    body = "\n".join(text)
    DOCUMENT.write_text(f"{before}<!-- quality -->\n{body}<!-- /quality -->{after}")


if __name__ == "__main__":
    main()
