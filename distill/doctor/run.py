"""The command ``doctor``: open everything that a recipe names, examine it, print the findings.

Nothing is written, except the index of shards that have none yet, because shards cannot be read
without it.
"""

from collections.abc import Iterator
from functools import partial

from rich.console import Console
from rich.text import Text

from distill.basis.progress import make_console
from distill.basis.words import counted
from distill.doctor._samples import ReadOnlyProject
from distill.doctor.cache import examine_caches
from distill.doctor.data import examine_data
from distill.doctor.finding import Finding, Level, attempt
from distill.doctor.machine import examine_machine, free_memory
from distill.doctor.recipe import examine_batch, examine_entries
from distill.doctor.student import examine_student
from distill.doctor.teacher import examine_teacher, open_teachers
from distill.recipe.config import RunConfig
from distill.run.folder import RunFolder
from distill.train.processes import check_device, check_trackers

_MARKS: dict[Level, tuple[str, str]] = {
    "fine": ("ok", "green"),
    "note": ("note", "yellow"),
    "wrong": ("wrong", "bold red"),
}


def run_doctor(config: RunConfig) -> bool:
    """Print each finding about a recipe as it comes, and return True if nothing is wrong."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    make_console().print("doctor: opening data and models, writing nothing", markup=False)
    found: list[Finding] = []
    for finding in _examine(config):
        found.append(finding)
        mark, style = _MARKS[finding.level]
        sentence = "; ".join(filter(None, (finding.text, finding.way_out)))
        console.print(Text(f"{mark:<7}", style) + Text(f"{finding.about}: {sentence}"))
    wrong, notes = (sum(one.level == level for one in found) for level in ("wrong", "note"))
    told = f"{wrong} wrong" if wrong else "nothing is wrong"
    console.print(f"doctor: {told}, {counted(notes, 'note')}" if notes else f"doctor: {told}")
    return not wrong


def _examine(config: RunConfig) -> Iterator[Finding]:
    """Yield the findings about a recipe, its data, its models and the machine, in this order.

    Something that cannot be opened is wrong, and what depends on it is not examined.
    """
    refused: list[Finding] = []
    attempt("run folder", RunFolder(config).check, refused)
    attempt("trackers", partial(check_trackers, config.train.trackers), refused)
    device = attempt("device", partial(_device, config), refused)
    yield from refused
    yield from examine_entries(config)
    yield from examine_batch(config.train.batch_size, list(config.terms))
    free = None if device is None else free_memory(device)
    project = ReadOnlyProject(config)
    samples = yield from examine_data(project)
    teachers = None if device is None else (yield from open_teachers(project))
    if samples is None or teachers is None:
        return
    for number, teacher in enumerate(teachers):
        name = "teacher" if len(teachers) == 1 else f"teacher.{number}"
        yield from examine_teacher(project, teacher, samples, name=name)
    caches = yield from examine_caches(project, teachers, samples)
    student = yield from examine_student(project, samples)
    if student is not None:
        yield from examine_machine(project, student, teachers, caches, samples, free=free)


def _device(config: RunConfig) -> str:
    check_device(config.train.device, config.train.precision)
    return config.device
