"""The command ``doctor``: opens what a recipe names, looks at all of it, says what it found.

Nothing is written, but for the index of shards that have none yet, without which they cannot be
read.
"""

from collections.abc import Generator, Iterator
from functools import partial

from rich.console import Console
from rich.text import Text

from distill.basis.progress import make_console
from distill.doctor.data import (
    examine_captions,
    examine_labels,
    examine_pictures,
    examine_readable,
)
from distill.doctor.finding import Finding, Level, attempt, note
from distill.doctor.machine import free_memory
from distill.doctor.recipe import examine_batch, examine_entries, examine_length
from distill.doctor.room import examine_room
from distill.doctor.sample import Examined, Look, look_at
from distill.doctor.student import examine_student
from distill.doctor.teacher import examine_caches, examine_teacher
from distill.evaluate.compare import check_set
from distill.recipe.config import RunConfig
from distill.run.folder import RunFolder
from distill.teacher.protocol import Teacher
from distill.train.processes import check_device, check_trackers
from export.runtime.errors import visible

_MARKS: dict[Level, tuple[str, str]] = {
    "fine": ("ok", "green"),
    "note": ("note", "yellow"),
    "wrong": ("wrong", "bold red"),
}


def run_doctor(config: RunConfig) -> bool:
    """Print each finding on a recipe as it comes, and return whether nothing is wrong."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    make_console().print("doctor: opening data and models, writing nothing", markup=False)
    found: list[Finding] = []
    for finding in examine(config):
        found.append(finding)
        mark, style = _MARKS[finding.level]
        sentence = "; ".join(filter(None, (finding.text, finding.way_out)))
        console.print(Text(f"{mark:<7}", style) + Text(f"{finding.about}: {sentence}"))
    wrong, notes = (sum(one.level == level for one in found) for level in ("wrong", "note"))
    told = f"{wrong} wrong" if wrong else "nothing is wrong"
    console.print(f"doctor: {told}, {notes} to look at" if notes else f"doctor: {told}")
    return not wrong


def examine(config: RunConfig) -> Iterator[Finding]:
    """Yield what is found about a recipe, its data, models and machine, one after the other.

    What cannot be opened is wrong, and what needs it is left out.
    """
    refused: list[Finding] = []
    attempt("run folder", RunFolder(config).check, refused)
    attempt("trackers", partial(check_trackers, config.train.trackers), refused)
    device = attempt("device", partial(_device, config), refused)
    yield from refused
    yield from examine_entries(config)
    yield from examine_batch(config.train.batch_size, list(config.terms))
    free = None if device is None else free_memory(device)
    project = Examined(config)
    looks = yield from _data(project)
    teachers = None if device is None else (yield from _teachers(project))
    if looks is None or teachers is None:
        return
    for number, teacher in enumerate(teachers):
        name = "teacher" if len(teachers) == 1 else f"teacher.{number}"
        yield from examine_teacher(project, teacher, looks, name=name)
    caches = yield from examine_caches(project, teachers, looks)
    student = yield from examine_student(project, looks)
    if student is not None:
        yield from examine_room(project, student, teachers, caches, looks, free=free)


def _device(config: RunConfig) -> str:
    check_device(config.train.device, config.train.precision)
    return config.device


def _data(project: Examined) -> Generator[Finding, None, list[Look] | None]:
    refused: list[Finding] = []
    sources = attempt("data", lambda: project.sources, refused)
    if sources is None:
        yield from refused
        return None
    looks = [
        look_at(source, seed=project.config.seed, number=number)
        for number, source in enumerate(sources)
    ]
    for look in looks:
        yield from _look(look, name=f" of {visible(look.source.name)}" if len(looks) > 1 else "")
    if project.skips:
        first = project.skips[0]
        told = f"{len(project.skips):,} rows or pictures are left out; {visible(first.where)}"
        yield note("data", f"{told}: {first.reason}", "see skipped.jsonl of a run for the others")
    labels = attempt("labels", lambda: project.labels, refused)
    yield from examine_labels("labels", labels.names if labels is not None else ())
    total = sum(len(source) for source in sources)
    steps = attempt("length", partial(_steps, project), refused)
    sets = attempt("evaluate", lambda: project.evaluation_sets, refused)
    for entry in sets or ():
        attempt(f"evaluate {entry.name}", partial(check_set, entry), refused)
    yield from refused
    if steps is not None:
        yield from examine_length(project.config, steps=steps, pictures=total)
    return looks


def _steps(project: Examined) -> int:
    # The order of the samples knows whether a batch fits.
    _ = project.position
    return project.steps


def _look(look: Look, *, name: str) -> Iterator[Finding]:
    tried = len(look.pictures) + len(look.unreadable)
    yield from examine_readable(f"pictures{name}", look.unreadable, tried)
    yield from examine_pictures(f"pictures{name}", look.pictures)
    if look.captions:
        yield from examine_captions(f"captions{name}", look.captions, look.keys)
    labels = [sample.label for sample in look.samples if sample.label is not None]
    yield from examine_labels(f"classes{name}", labels)


def _teachers(project: Examined) -> Generator[Finding, None, list[Teacher] | None]:
    """Return the recipe's teachers, none where it has none, None where one cannot be loaded."""
    refused: list[Finding] = []
    teacher = attempt("teacher", lambda: project.teacher, refused)
    yield from refused
    if refused:
        return None
    return [] if teacher is None else list(teacher.members)
