"""The cache stage: one cache for each teacher and each source, built or added to."""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from accelerate import Accelerator

from distill.basis.progress import Bar, make_console, progress_bar
from distill.basis.words import counted
from distill.data.sample import Skip
from distill.evaluate.teachers import EnsembleEncoder
from distill.run.folder import RunFolder
from distill.run.project import Project, describe
from distill.teacher.cache.build import Sharing, build_cache, identify, open_cache
from distill.teacher.cache.cache import Cache
from distill.teacher.cache.manifest import read_manifest
from distill.teacher.protocol import Teacher


def build_caches(
    project: Project, folder: RunFolder, accelerator: Accelerator | None = None
) -> list[list[Cache]]:
    """Embed what the caches lack; return, for each teacher, the caches of all sources.

    With an accelerator, every process must call this, and each embeds its share. Only the main
    process writes to the run folder.
    """
    ensemble = project.teacher
    if ensemble is None:
        return []
    console, main = make_console(), accelerator is None or accelerator.is_main_process
    # Training comes here again after the cache stage, which has already printed all this.
    told = folder.finished("cache")
    built = []
    folders = cache_folders(project, folder.path)
    for teacher, title, paths in zip(ensemble.members, ensemble.titles, folders, strict=True):
        if not told:
            console.print(f"cache: {title} over {describe(project.sources)}")
        caches, skips = _build_all(project, teacher, paths, accelerator)
        built.append(caches)
        if main:
            folder.add_skips(skips)
        for cache in () if told else caches:
            size = sum(file.stat().st_size for file in cache.folder.glob("*.npy"))
            console.print(f"cache: {cache.folder} holds {size / 1e6:.1f} MB")
        if teacher.truncated:
            cut = counted(teacher.truncated, "caption")
            were = "was" if teacher.truncated == 1 else "were"
            console.print(f"cache: {cut} {were} cut, since they are longer than {title} reads")
    if main:
        folder.finish("cache")
    if accelerator is not None:
        accelerator.wait_for_everyone()
    return built


def _build_all(
    project: Project, teacher: Teacher, folders: Sequence[Path], accelerator: Accelerator | None
) -> tuple[list[Cache], list[Skip]]:
    """Build one teacher's caches of all sources; return them and the pictures left out."""
    caches: list[Cache] = []
    skips: list[Skip] = []
    for path, source in zip(folders, project.sources, strict=True):
        with ExitStack() as stack:
            cache, skipped = build_cache(
                path,
                source,
                teacher,
                settings=project.build_settings,
                progress=_Bars(stack),
                parts=project.teacher_parts,
                extra_texts=() if caches else project.bank_texts,
                sharing=_sharing(accelerator, caches),
            )
        caches.append(cache)
        skips += skipped
    return caches, skips


def check_caches(project: Project, run_folder: Path) -> None:
    """Check that existing caches were built with these teachers and views.

    Raises:
        CacheError: A cache was built with something else; the message names what differs.
    """
    ensemble = project.teacher
    if ensemble is None or project.config.train.teacher != "cached":
        return
    for teacher, paths in zip(ensemble.members, cache_folders(project, run_folder), strict=True):
        for path in paths:
            read_manifest(path, identify(teacher, project.build_settings))


def _sharing(accelerator: Accelerator | None, caches: Sequence[Cache]) -> Sharing:
    if accelerator is None:
        return Sharing(caches=tuple(caches))
    return Sharing(
        rank=accelerator.process_index,
        count=accelerator.num_processes,
        wait=accelerator.wait_for_everyone,
        caches=tuple(caches),
    )


class _Bars:
    """A progress bar for each part of a cache, one after another."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._part = ""
        self._bar: Bar | None = None

    def __call__(self, part: str, done: int, total: int) -> None:
        if self._bar is None or part != self._part:
            self._stack.close()
            self._part = part
            self._bar = self._stack.enter_context(progress_bar(f"caching {part}", total))
        self._bar.update(done)


def cache_folders(project: Project, run_folder: Path) -> list[list[Path]]:
    """Return, for each teacher, the cache folder of each source, named by teacher and source."""
    named = project.config.cache.folder
    base = run_folder / "cache" if named is None else Path(named)
    members = () if project.teacher is None else project.teacher.members
    sources = _source_names(project)
    return [[base / name / source for source in sources] for name in _teacher_names(members)]


def teacher_encoder(project: Project, run_folder: Path) -> EnsembleEncoder | None:
    """Return the recipe's teachers as one encoder, None if the recipe has none.

    Texts that the caches hold, such as 80 prompts for each label, are looked up there, unless the
    caches are rounded to int8.

    Raises:
        CacheError: A cache was built with something else.
    """
    ensemble, config = project.wake_teacher(), project.config
    if ensemble is None:
        return None
    if config.train.teacher != "cached" or config.cache.dtype == "int8":
        return EnsembleEncoder(ensemble)
    folders = cache_folders(project, run_folder)
    return EnsembleEncoder(
        ensemble,
        known=[
            open_cache(paths[0], teacher, project.build_settings).texts
            for teacher, paths in zip(ensemble.members, folders, strict=True)
        ],
    )


def _teacher_names(teachers: Sequence[Teacher]) -> list[str]:
    """Return a name for the folder of each teacher."""
    slugs = [_slug(teacher.name) for teacher in teachers]
    # Some file systems ignore case.
    counts = Counter(slug.lower() for slug in slugs)
    return [
        # The name must not depend on the order of the teachers.
        f"{slug}-{teacher.fingerprint[:8]}" if counts[slug.lower()] > 1 else slug
        for slug, teacher in zip(slugs, teachers, strict=True)
    ]


def _source_names(project: Project) -> list[str]:
    seen: list[str] = []
    for source in project.sources:
        # The last two parts of the path, so a data set that moves as a whole keeps its cache.
        name = _slug("-".join(Path(source.name).parts[-2:]))
        while name in seen:
            name += "-again"
        seen.append(name)
    return seen


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"
