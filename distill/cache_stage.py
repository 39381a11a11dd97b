"""The cache stage: one cache for each source of a project, built or added to."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from accelerate import Accelerator

from distill.cache import Cache
from distill.cache_build import Sharing, build_cache, identify
from distill.cache_manifest import read_manifest
from distill.progress import Bar, make_console, progress_bar
from distill.project import Project, describe
from distill.run_folder import RunFolder


def build_caches(
    project: Project, folder: RunFolder, accelerator: Accelerator | None = None
) -> list[Cache]:
    """Embed what is not in the caches yet; return those of all sources, none without a teacher.

    With an accelerator every process has to call this, and each embeds its share; the run folder
    is written by the main process alone.
    """
    teacher = project.teacher
    if teacher is None:
        return []
    console, main = make_console(), accelerator is None or accelerator.is_main_process
    # Training goes through here again after the cache stage, which has said all this.
    told = folder.finished("cache")
    if not told:
        console.print(f"cache: {teacher.name} over {describe(project.sources)}")
    caches: list[Cache] = []
    folders = cache_folders(project, folder.path)
    for path, source in zip(folders, project.sources, strict=True):
        with ExitStack() as stack:
            cache, skips = build_cache(
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
        if main:
            folder.add_skips(skips)
        if not told:
            size = sum(file.stat().st_size for file in cache.folder.glob("*.npy"))
            console.print(f"cache: {cache.folder} holds {size / 1e6:.1f} MB")
    if teacher.truncated:
        console.print(f"cache: {teacher.truncated} captions were longer than the teacher reads")
    if main:
        folder.finish("cache")
    if accelerator is not None:
        accelerator.wait_for_everyone()
    return caches


def check_caches(project: Project, run_folder: Path) -> None:
    """See that what stands in the folders of the caches is of this teacher and these views.

    Raises:
        CacheError: it is of something else; the message names what differs.
    """
    if project.teacher is not None and project.config.train.teacher == "cached":
        for path in cache_folders(project, run_folder):
            read_manifest(path, identify(project.teacher, project.build_settings))


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
    """A progress bar for each part of a cache, one after the other."""

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


def cache_folders(project: Project, run_folder: Path) -> Iterator[Path]:
    """Yield a folder for each source, named by teacher and source."""
    named = project.config.cache.folder
    base = run_folder / "cache" if named is None else Path(named)
    teacher = "" if project.teacher is None else project.teacher.name
    seen: set[str] = set()
    for source in project.sources:
        # The last two parts of a path: a data set that moves as a whole keeps its cache.
        name = _slug("-".join(Path(source.name).parts[-2:]))
        while name in seen:
            name += "-again"
        seen.add(name)
        yield base / _slug(teacher) / name


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"
