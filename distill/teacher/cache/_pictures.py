"""Pictures on their way into a cache: decoded by workers, rendered in all views, embedded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from distill.data.sample import Source, image_size, open_image
from distill.data.views import ViewSettings, draw_view, render_view
from distill.data.workers import from_workers, ignore_interrupts
from distill.teacher.cache.rows import row_digests
from distill.teacher.protocol import Teacher
from export.runtime.errors import DataError
from export.runtime.preprocess import Preprocessing


@dataclass(frozen=True)
class Picture:
    """All views of a picture.

    Attributes:
        key: The picture's key in its source.
        size: Its size in bytes.
        pixels: The views as uint8 ``[views, H, W, 3]``; None if the picture cannot be read.
        reason: Why it cannot be read.
    """

    key: str
    size: int
    pixels: NDArray[np.uint8] | None
    reason: str = ""


class PictureViews(Dataset[Picture]):
    """All views of some pictures of a source, at the teacher's size.

    Args:
        source: The source.
        numbers: The numbers of the pictures in the source.
        preprocessing: The teacher's preprocessing.
        views: How views are drawn.
        view_count: How many views each picture has.
    """

    def __init__(
        self,
        source: Source,
        numbers: Sequence[int],
        preprocessing: Preprocessing,
        *,
        views: ViewSettings,
        view_count: int,
    ) -> None:
        self._source = source
        self._numbers = numbers
        self._preprocessing = preprocessing
        self._views = views
        self._count = view_count

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, item: int) -> Picture:
        sample = self._source[self._numbers[item]]
        size = image_size(sample)
        try:
            image = open_image(sample, draft=self._views.draft)
            pixels = [
                render_view(
                    image,
                    draw_view(self._views, sample.key, number, size=image.size),
                    self._preprocessing,
                )
                for number in range(self._count)
            ]
        except DataError as error:
            return Picture(sample.key, size, None, str(error))
        return Picture(sample.key, size, np.stack(pixels))


def read_pictures(
    pictures: PictureViews, *, batch_size: int, workers: int
) -> Iterable[list[Picture]]:
    """Yield pictures in batches, decoded by worker processes."""
    loader = DataLoader(
        pictures,
        batch_size=batch_size,
        collate_fn=list,
        num_workers=workers,
        worker_init_fn=ignore_interrupts if workers else None,
    )
    return from_workers(loader)


def embed_pictures(
    batch: Sequence[Picture], teacher: Teacher, *, view_count: int, batch_size: int
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Embed all views of the readable pictures, ``batch_size`` views at a time.

    Returns:
        The keys ``[n, 3]`` and the embeddings ``[n, views, width]`` of the readable pictures.
    """
    pixels = [picture.pixels for picture in batch if picture.pixels is not None]
    readable = [picture for picture in batch if picture.pixels is not None]
    shape = (len(readable), view_count, teacher.width)
    if not readable:
        return np.zeros((0, 3), np.uint64), np.zeros(shape, np.float32)
    parts = torch.split(torch.from_numpy(np.concatenate(pixels)), batch_size)
    embeddings = [teacher.encode_images(part).cpu() for part in parts]
    sizes = np.array([[picture.size] for picture in readable], np.uint64)
    keys = np.concatenate([row_digests(picture.key for picture in readable), sizes], axis=1)
    return keys, torch.cat(embeddings).reshape(shape).numpy()
