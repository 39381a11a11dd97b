"""The cache stage: one cache for each source of a project, built, added to or opened."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from distill.cache import Cache, read_manifest
from distill.cache_build import build_cache, identify
from distill.progress import Bar, make_console, progress_bar
from distill.project import Project, describe
from distill.run_folder import RunFolder


def build_caches(project: Project, folder: RunFolder) -> None:
    """Embed all training pictures and captions that are not in the caches yet."""
    teacher = project.teacher
    if teacher is None:
        return
    console = make_console()
    console.print(f"cache: {teacher.name} over {describe(project.sources)}")
    for path, source in zip(_folders(project, folder.path), project.sources, strict=True):
        with ExitStack() as stack:
            show = _Bars(stack)
            cache, skips = build_cache(
                path,
                source,
                teacher,
                views=project.views,
                settings=project.build_settings,
                progress=show,
            )
        folder.add_skips(skips)
        size = sum(file.stat().st_size for file in cache.folder.glob("*.npy"))
        console.print(f"cache: {cache.folder} holds {size / 1e6:.1f} MB")
    if teacher.truncated:
        console.print(f"cache: {teacher.truncated} captions were longer than the teacher reads")
    folder.finish("cache")


def open_caches(project: Project, run_folder: Path) -> list[Cache] | None:
    """Open the caches of all sources; None where one of them is absent or lacks something."""
    teacher = project.teacher
    if teacher is None:
        return None
    identity = identify(teacher, project.views, project.build_settings)
    caches = []
    for path, source in zip(_folders(project, run_folder), project.sources, strict=True):
        manifest = read_manifest(path, identity)
        if manifest is None:
            return None
        cache = Cache(path, manifest)
        if cache.missing(source):
            return None
        caches.append(cache)
    return caches


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


def _folders(project: Project, run_folder: Path) -> Iterator[Path]:
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
