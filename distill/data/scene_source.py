"""Scenes as a source: rendered into a folder, or drawn in memory."""

from functools import cached_property
from pathlib import Path

from distill.data.sample import Sample, Skip, Source
from distill.data.scenes import TABLE_FILE, Scene, Split, draw_scene, png_bytes, render_scenes
from distill.data.tables.table import open_table

# The number of different scenes that a preview draws; they repeat after that.
_PREVIEWED = 64


def open_scenes(
    path: Path, *, count: int, seed: int, image_size: int, split: Split, captioned: int | None
) -> Source:
    """Render scenes into a folder, unless they are already there, and open them.

    The arguments are those of :func:`distill.data.scenes.render_scenes`.

    Raises:
        DataError: The folder holds other scenes or other files.
    """
    table = render_scenes(
        path, count=count, seed=seed, image_size=image_size, split=split, captioned=captioned
    )
    return open_table(table)


def preview_scenes(
    path: Path, *, count: int, seed: int, image_size: int, split: Split, captioned: int | None
) -> Source:
    """Return the scenes that would be rendered into a folder, without writing anything."""
    return _Preview(
        str(path / TABLE_FILE),
        count=count,
        seed=seed,
        image_size=image_size,
        split=split,
        captioned=captioned,
    )


class _Preview:
    """Scenes in memory: a few are drawn, and repeated."""

    skipped: tuple[Skip, ...] = ()

    def __init__(
        self,
        name: str,
        *,
        count: int,
        seed: int,
        image_size: int,
        split: Split,
        captioned: int | None,
    ) -> None:
        """Remember what to draw; ``name`` is the table that rendering would write."""
        self.name = name
        self.rows = count
        self._seed = seed
        self._image_size = image_size
        self._split: Split = split
        self._captioned = captioned

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> Sample:
        number = range(self.rows)[index]
        scene, png = self._scenes[number % len(self._scenes)]
        limit = self._captioned
        captions = (scene.caption,) if limit is None or number < limit else ()
        return Sample(f"images/{number:06d}.png", png, captions, scene.label)

    @cached_property
    def _scenes(self) -> list[tuple[Scene, bytes]]:
        return [self._draw(number) for number in range(min(self.rows, _PREVIEWED))]

    def _draw(self, number: int) -> tuple[Scene, bytes]:
        scene = draw_scene(number, seed=self._seed, image_size=self._image_size, split=self._split)
        return scene, png_bytes(scene.image)
