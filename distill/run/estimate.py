"""What a cache would cost, compared with a live teacher, before anything is built."""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from distill.basis.progress import make_console
from distill.basis.words import counted, human_bytes, human_time
from distill.data.open import unrendered
from distill.data.sample import Sample, Source
from distill.recipe.config import RunConfig
from distill.run.cache_stage import cache_folders
from distill.run.folder import RunFolder
from distill.run.project import Project, describe
from distill.run.speeds import Speeds, measure_speeds, overlapped
from distill.teacher.cache.build import BuildSettings, open_cache
from distill.teacher.cache.manifest import PARTS
from distill.teacher.cache.rows import StoredAs
from distill.teacher.protocol import Teacher
from export.runtime.errors import DataError, RecipeError

_ITEM_BYTES: dict[StoredAs, int] = {"float16": 2, "float32": 4, "int8": 1}
_SCALE_BYTES = 4
_KEY_BYTES = 24


@dataclass(frozen=True)
class Workload:
    """How much there is to embed in all, and how much of it a teacher's caches lack."""

    pictures: int
    captions: int
    missing_pictures: int
    missing_captions: int


@dataclass(frozen=True)
class Estimate:
    """What a cache would cost in bytes and seconds, and what the live teacher would cost."""

    work: Workload
    speeds: Speeds
    bytes_whole: int
    bytes_to_write: int
    bytes_free: int
    build_seconds: float
    live_epoch_seconds: float
    cached_epoch_seconds: float
    epochs: float

    @property
    def pays_from_epochs(self) -> int | None:
        """The number of epochs from which building the cache pays off; None if it never does."""
        saved = self.live_epoch_seconds - self.cached_epoch_seconds
        return max(1, math.ceil(self.build_seconds / saved)) if saved > 0 else None


def _add_up(estimates: Sequence[Estimate]) -> Estimate:
    """Return what the caches of several teachers cost together."""
    return replace(
        estimates[0],
        work=Workload(*_sums(estimate.work for estimate in estimates)),
        speeds=Speeds(*_sums(estimate.speeds for estimate in estimates)),
        bytes_whole=sum(estimate.bytes_whole for estimate in estimates),
        bytes_to_write=sum(estimate.bytes_to_write for estimate in estimates),
        build_seconds=sum(estimate.build_seconds for estimate in estimates),
        live_epoch_seconds=sum(estimate.live_epoch_seconds for estimate in estimates),
        cached_epoch_seconds=sum(estimate.cached_epoch_seconds for estimate in estimates),
    )


def _sums(parts: Iterable[Workload | Speeds]) -> list[Any]:
    return [sum(values) for values in zip(*map(astuple, parts), strict=True)]


def print_estimate(config: RunConfig) -> None:
    """Print what ``clip-distill cache`` would cost for a recipe; write nothing.

    Raises:
        RecipeError: The recipe has no teacher.
        DataError: The pictures are missing, or none of them can be read.
        CacheError: The cache folder holds something else.
    """
    if not config.teachers:
        raise RecipeError("teacher: the recipe has no teacher, so there is nothing to cache")
    RunFolder(config).check()
    _check_rendered(config)
    project = Project(config)
    sources, ensemble = project.sources, project.teacher
    if ensemble is None:
        raise RecipeError("teacher: the recipe has no teacher, so there is nothing to cache")
    make_console().print(f"cache: timing {ensemble.name} on {describe(sources)}")
    folders = cache_folders(project, config.folder)
    estimates = [
        _make_estimate(project, teacher, of_teacher)
        for teacher, of_teacher in zip(ensemble.members, folders, strict=True)
    ]
    _show(dict(zip(ensemble.titles, estimates, strict=True)), project, folders[0][0].parent.parent)


def _make_estimate(project: Project, teacher: Teacher, folders: Sequence[Path]) -> Estimate:
    """Return what one teacher's caches in these folders would cost."""
    config, settings, sources = project.config, project.build_settings, project.sources
    work = _count_work(project, teacher, folders)
    speeds = measure_speeds(sources, teacher, settings, device=config.device)
    total = sum(len(source) for source in sources)

    def together(reading: float, embedding: float) -> float:
        return overlapped(reading, embedding, workers=settings.workers, device=config.device)

    build = together(
        work.missing_pictures * (speeds.decode + settings.view_count * speeds.view),
        work.missing_pictures * settings.view_count * speeds.image
        + work.missing_captions * speeds.caption,
    )
    missing = (work.missing_pictures, work.missing_captions)
    return Estimate(
        work=work,
        speeds=speeds,
        bytes_whole=stored_bytes(work.pictures, work.captions, teacher.width, settings),
        bytes_to_write=stored_bytes(*missing, teacher.width, settings),
        bytes_free=shutil.disk_usage(existing_folder(folders[0])).free,
        build_seconds=build,
        # A picture is decoded for the student either way.
        live_epoch_seconds=together(total * speeds.view, total * (speeds.image + speeds.caption)),
        cached_epoch_seconds=total * speeds.lookup,
        epochs=project.steps * config.train.batch_size / total,
    )


def _count_work(project: Project, teacher: Teacher, folders: Sequence[Path]) -> Workload:
    """Count the pictures and captions of all sources, and those that the caches lack."""
    counts = np.zeros(4, np.int64)
    for number, (folder, source) in enumerate(zip(folders, project.sources, strict=True)):
        cache = open_cache(folder, teacher, project.build_settings)
        images, captions = (part in project.teacher_parts for part in PARTS)
        every = (text for sample in _samples(source) for text in sample.captions)
        texts = dict.fromkeys(every if captions else ())
        extra = () if number else project.bank_texts
        missing = cache.missing(source, images=images, captions=captions, extra_texts=extra)
        pictures, count = len(source) if images else 0, len(texts | dict.fromkeys(extra))
        counts += [pictures, count, len(missing.pictures), len(missing.captions)]
    return Workload(*counts.tolist())


def stored_bytes(pictures: int, captions: int, width: int, settings: BuildSettings) -> int:
    """Return the bytes that a number of pictures and captions takes in a cache."""
    scale = _SCALE_BYTES if settings.dtype == "int8" else 0
    vector = width * _ITEM_BYTES[settings.dtype] + scale
    return pictures * (settings.view_count * vector + _KEY_BYTES) + captions * (vector + _KEY_BYTES)


def _samples(source: Source) -> Iterator[Sample]:
    return (source[number] for number in range(len(source)))


def _check_rendered(config: RunConfig) -> None:
    for source in config.train_sources:
        folder = unrendered(source, output=config.folder)
        if folder is not None:
            raise DataError(
                f"{folder}: the scenes are not rendered yet, and --estimate writes nothing; "
                "run `clip-distill cache`, or estimate on pictures that exist"
            )


def existing_folder(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists."""
    return next(
        place for place in [folder.absolute(), *folder.absolute().parents] if place.exists()
    )


def _show(estimates: Mapping[str, Estimate], project: Project, place: Path) -> None:
    estimate = _add_up(list(estimates.values()))
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for title, one in estimates.items():
        if len(estimates) > 1:
            console.print(f"{'teacher':<16}{title}")
        _print_rows(_rows_of_teacher(one, project, place), console)
    if len(estimates) > 1:
        console.print(f"{'together':<16}{_on_disk(estimate, project, place)}")
    _print_rows(_rows_of_run(estimate), console)
    if estimate.bytes_to_write > estimate.bytes_free:
        console.print(
            f"warning: {place} has {human_bytes(estimate.bytes_free)} free, and the cache needs "
            f"{human_bytes(estimate.bytes_to_write)}; free some, or set cache.folder elsewhere"
        )


def _print_rows(rows: Mapping[str, str], console: Console) -> None:
    for name, text in rows.items():
        console.print(f"{name:<16}{text}")


def _on_disk(estimate: Estimate, project: Project, place: Path) -> str:
    return (
        f"{human_bytes(estimate.bytes_to_write)} to write, "
        f"{human_bytes(estimate.bytes_whole)} in all, {project.build_settings.dtype}; "
        f"{human_bytes(estimate.bytes_free)} are free at {place}"
    )


def _rows_of_teacher(estimate: Estimate, project: Project, place: Path) -> dict[str, str]:
    """Return what one teacher's caches of all sources hold, and how fast the teacher is."""
    work, speeds, settings = estimate.work, estimate.speeds, project.build_settings
    return {
        "to embed": f"{work.missing_pictures:,} of {work.pictures:,} pictures × "
        f"{counted(settings.view_count, 'view')}, "
        f"{work.missing_captions:,} of {work.captions:,} captions",
        "on disk": _on_disk(estimate, project, place),
        "measured": f"{counted(speeds.pictures, 'picture')} on {project.config.device}: decode "
        f"{_ms(speeds.decode)}, view {_ms(speeds.view)}, embed a view {_ms(speeds.image)}, "
        f"a caption {_ms(speeds.caption)}; {counted(settings.workers, 'worker')}",
    }


def _rows_of_run(estimate: Estimate) -> dict[str, str]:
    """Return what all teachers together cost a run, cached or live."""
    live, cached, once = (
        estimate.live_epoch_seconds,
        estimate.cached_epoch_seconds,
        estimate.build_seconds,
    )
    run = f"over the recipe's {counted(estimate.epochs, 'epoch')}"
    least = estimate.pays_from_epochs
    pays = "never" if least is None else f"in a run of {counted(least, 'epoch')} or more"
    return {
        "building": f"{human_time(once)}, once",
        "cached": f"{human_time(cached)} an epoch of look-ups; with building "
        f"{human_time(once + cached * estimate.epochs)} {run}",
        "live teacher": f"{human_time(live)} an epoch; {human_time(live * estimate.epochs)} {run}",
        "the cache pays": pays,
    }


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
