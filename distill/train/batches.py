"""Batches: the rows of a step as tensors, prepared in worker processes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from distill.basis.draws import draw_integers, draw_permutation
from distill.data.order.position import Place, Position
from distill.data.pairs import Captions
from distill.data.sample import Sample, Skip, Source, open_image
from distill.data.views import ViewSettings, draw_view, render_view
from distill.data.workers import from_workers, ignore_interrupts
from distill.losses.weighted import Mask
from distill.teacher.cache.cache import caption_ids, picture_ids
from distill.teacher.cache.ensemble import CachedEnsemble
from distill.train.piece import Piece
from distill.train.towers import BOTH, Towers
from export.runtime.errors import DataError
from export.runtime.preprocess import Preprocessing
from students.encoder import tokenize


@dataclass(frozen=True)
class Partners:
    """The ids by which the true partners of rows are found in a corpus, int64 ``[P, 2]``: row, id.

    ``captions`` has all captions of each row's picture, ``pictures`` the picture of each row whose
    caption is its own.
    """

    captions: Tensor
    pictures: Tensor


@dataclass(frozen=True)
class Batch:
    """This process's rows of one step.

    ``teacher_pixels`` is uint8 ``[B, H, W, 3]`` at the size of each live teacher. ``teacher_image``
    and ``teacher_text`` are the embeddings of cached teachers, ``[B, D]``. ``pair_ids`` is int64
    ``[B, 2]`` with digests of key and caption; a borrowed caption has -1. ``partners`` finds the
    rows' true partners in a corpus, if a term needs them.
    """

    keys: list[str]
    captions: list[str]
    pair_ids: Tensor
    pieces: list[Piece]
    teacher_pixels: tuple[Tensor, ...]
    teacher_image: Tensor | None
    teacher_text: Tensor | None
    partners: Partners | None
    skipped: list[Skip]

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory; the data loader calls this."""
        seen = tuple(pixels.pin_memory() for pixels in self.teacher_pixels)
        image, text = (
            None if tensor is None else tensor.pin_memory()
            for tensor in (self.teacher_image, self.teacher_text)
        )
        pieces = [piece.pin_memory() for piece in self.pieces]
        return replace(
            self, pieces=pieces, teacher_pixels=seen, teacher_image=image, teacher_text=text
        )


@dataclass(frozen=True)
class Inputs:
    """How samples become inputs of the models; what a model does not need is None.

    ``teachers`` is the preprocessing of each live teacher; ``cached`` are the teachers whose
    embeddings are looked up. Both are used only for the student's ``towers``. ``piece_rows`` is the
    largest number of rows in a piece; None puts all rows into one piece.
    """

    views: ViewSettings
    view_count: int
    student: Preprocessing | None
    teachers: tuple[Preprocessing, ...] = ()
    cached: CachedEnsemble | None = None
    towers: Towers = BOTH
    tokenizer: Any = None
    tokenizing: Mapping[str, Any] = field(default_factory=dict)
    mask: Mask | None = None
    find_partners: bool = False
    piece_rows: int | None = None


class StepDataset(Dataset[Batch]):
    """Maps a step to this process's batch, as a pure function: workers change nothing."""

    def __init__(
        self,
        sources: Sequence[Source],
        position: Position,
        captions: Captions,
        inputs: Inputs,
        *,
        rows: slice | None = None,
    ) -> None:
        """Take the data, and ``rows``, this process's part of the global batch; None is all."""
        self._sources = sources
        self._position = position
        self._captions = captions
        self._inputs = inputs
        self._rows = rows

    def __getitem__(self, step: int) -> Batch:
        skipped: list[Skip] = []
        rows = [self._row(place, skipped) for place in self._position.batch(step, self._rows)]
        sources, keys, views = zip(*((row.source, row.key, row.view) for row in rows), strict=True)
        captions = [row.caption for row in rows if row.caption is not None]
        cached = self._inputs.cached
        return Batch(
            keys=list(keys),
            captions=captions,
            pair_ids=torch.tensor([row.pair_id for row in rows], dtype=torch.int64),
            pieces=[self._piece(rows[part]) for part in cut(len(rows), self._inputs.piece_rows)],
            teacher_pixels=tuple(
                _stack(of_teacher)
                for of_teacher in zip(*(row.teacher_pixels for row in rows), strict=True)
            ),
            teacher_image=cached.images(sources, keys, views)
            if cached is not None and self._inputs.towers.image
            else None,
            teacher_text=cached.captions(captions) if cached is not None and captions else None,
            partners=_partners(rows) if self._inputs.find_partners else None,
            skipped=skipped,
        )

    def _piece(self, rows: Sequence["_Row"]) -> Piece:
        inputs = self._inputs
        captions = [row.caption for row in rows if row.caption is not None]
        return Piece(
            pixels=_stack_present([row.pixels for row in rows]),
            hidden=_stack_present([row.hidden for row in rows]),
            tokens=tokenize(inputs.tokenizer, captions, **inputs.tokenizing)
            if inputs.tokenizer is not None and captions
            else None,
        )

    def _row(self, place: Place, skipped: list[Skip]) -> "_Row":
        """Read a row; the next readable sample replaces an unreadable one."""
        source = self._sources[place.source]
        for _ in range(len(source)):
            sample = source[place.index]
            try:
                return self._read(sample, place)
            except DataError as error:
                skipped.append(Skip(where=sample.key, reason=str(error)))
                place = self._position.after(place)
        raise DataError(
            f"{source.name}: no picture can be read; the last one is {skipped[-1].where}: "
            f"{skipped[-1].reason}"
        )

    def _read(self, sample: Sample, place: Place) -> "_Row":
        inputs = self._inputs
        number = place.times_shown % inputs.view_count
        pixels, hidden, teacher_pixels = None, None, []
        if inputs.student is not None or inputs.teachers:
            image = open_image(sample, draft=inputs.views.draft)
            view = draw_view(inputs.views, sample.key, number, size=image.size)
            pixels = None if inputs.student is None else render_view(image, view, inputs.student)
            teacher_pixels = [render_view(image, view, look) for look in inputs.teachers]
        if pixels is not None and inputs.mask is not None:
            hidden = hide_patches(
                inputs.mask,
                pixels.shape[:2],
                draw=("mask", inputs.views.seed, sample.key, place.times_shown),
            )
        caption = None
        if inputs.towers.text:
            caption = self._captions.choose(sample, times_shown=place.times_shown)
        digest = -1 if caption is None or caption.borrowed else _digest(caption.text)
        return _Row(
            source=place.source,
            key=sample.key,
            caption=None if caption is None else caption.text,
            own_captions=sample.captions,
            view=number,
            pair_id=(_digest(place.source, sample.key), digest),
            pixels=pixels,
            hidden=hidden,
            teacher_pixels=teacher_pixels,
        )


@dataclass(frozen=True)
class _Row:
    source: int
    key: str
    caption: str | None
    own_captions: Sequence[str]
    view: int
    pair_id: tuple[int, int]
    pixels: NDArray[np.uint8] | None
    hidden: NDArray[np.bool_] | None
    teacher_pixels: Sequence[NDArray[np.uint8]]


def _partners(rows: Sequence[_Row]) -> Partners:
    places = [place for place, row in enumerate(rows) for _ in row.own_captions]
    captions = caption_ids([text for row in rows for text in row.own_captions])
    owners = [place for place, row in enumerate(rows) if row.own_captions]
    pictures = picture_ids(
        [rows[place].source for place in owners], [rows[place].key for place in owners]
    )
    return Partners(
        captions=torch.from_numpy(np.stack([np.asarray(places, np.int64), captions], axis=1)),
        pictures=torch.from_numpy(np.stack([np.asarray(owners, np.int64), pictures], axis=1)),
    )


def cut(rows: int, most: int | None) -> list[slice]:
    """Cut rows into the fewest pieces of at most ``most`` rows, with sizes that differ by one.

    A small last piece would be too little for the statistics of batch norm.
    """
    count = 1 if most is None else math.ceil(rows / most)
    return [slice(rows * i // count, rows * (i + 1) // count) for i in range(count)]


def batches(dataset: StepDataset, steps: range, *, workers: int, pin: bool) -> Iterator[Batch]:
    """Yield the batches of the given steps in order; worker processes read ahead."""
    loader = DataLoader(
        dataset,
        sampler=list(steps),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=ignore_interrupts if workers else None,
    )
    return from_workers(loader)


def hide_patches(
    mask: Mask, size: tuple[int, ...], *, draw: tuple[str | int, ...]
) -> NDArray[np.bool_]:
    """Return which pixels ``[H, W]`` are hidden: patches drawn without repetition.

    The mask is a function of the arguments alone, so it does not depend on the processes.
    """
    rows, columns = (math.ceil(side / mask.patch) for side in size)
    patches = np.zeros(rows * columns, np.bool_)
    order = draw_permutation(rows * columns, *draw)
    patches[order[: round(mask.ratio * rows * columns)]] = True
    whole = np.kron(patches.reshape(rows, columns), np.ones((mask.patch,) * 2, np.bool_))
    return np.ascontiguousarray(whole[: size[0], : size[1]])


def _digest(*parts: str | int) -> int:
    # 63 bits: -1 stays free to mark a borrowed caption.
    return draw_integers("pair", *parts)[0] >> 1


def _stack_present(rows: Sequence[NDArray[Any] | None]) -> Tensor | None:
    present = [row for row in rows if row is not None]
    return _stack(present) if present else None


def _stack(rows: Sequence[NDArray[Any]]) -> Tensor:
    # In a worker, this fills memory shared with the main process, without another copy.
    stacked: Tensor = default_collate([torch.from_numpy(row) for row in rows])
    return stacked
