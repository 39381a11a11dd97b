"""Views: deterministic crops of a picture that teacher and student both see."""

import math
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.random import mtrand
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from distill.basis.draws import draw_integers, draw_uniforms
from export.runtime.preprocess import Preprocessing

_ATTEMPTS = 10


@dataclass(frozen=True)
class ViewSettings:
    """How views are drawn; part of a cache's fingerprint.

    ``scale`` is the range of the crop's share of the area, and ``ratio`` the range of width over
    height. With ``flip``, half of the views are mirrored. ``color_jitter`` is the largest relative
    change of brightness, contrast and saturation. ``rand_augment`` is a configuration of timm's
    RandAugment, None for none. ``draft`` is the smallest shorter side in pixels at which a JPEG may
    be decoded, None for its full size.
    """

    seed: int
    kind: Literal["random", "center"]
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: bool
    color_jitter: float
    rand_augment: str | None = None
    draft: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that matter as plain values."""
        values = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None
        }
        if self.kind == "random":
            return values
        return {key: values[key] for key in ("kind", "draft") if key in values}

    def draft_for(self, models: Iterable[Preprocessing]) -> int:
        """Return the ``draft`` that leaves the smallest crop as many pixels as these models see.

        The side of a crop is at least the picture's shorter side times ``sqrt(share * ratio)``, for
        the smallest share of the area and the most extreme ratio.
        """
        if self.kind == "center":
            return max(model.resize_to or max(model.size) for model in models)
        stretch = min(self.ratio[0], 1 / self.ratio[1], 1.0)
        side = max(max(model.size) for model in models)
        return math.ceil(side / math.sqrt(self.scale[0] * stretch))


@dataclass(frozen=True)
class View:
    """One view of one picture: a box in pixels (left, top, right, bottom), and its changes.

    ``box`` is None for the centre view, which each model crops as in evaluation.
    ``rand_augment`` is a configuration of timm's RandAugment and the seed of its choices, None for
    none.
    """

    box: tuple[int, int, int, int] | None
    flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    rand_augment: tuple[str, int] | None = None


def draw_view(settings: ViewSettings, key: str, number: int, *, size: tuple[int, int]) -> View:
    """Return view ``number`` of the picture ``key``, whose size is (width, height) in pixels.

    A pure function of its arguments. The box is a random resized crop (Szegedy et al. 2015), with
    an area from ``scale`` and a ratio of width to height that is log-uniform in ``ratio``. If ten
    draws do not fit the picture, it is the largest centred box with a ratio in the range.
    """
    if settings.kind == "center":
        return View(None)
    flip, *jitter = draw_uniforms("view", settings.seed, key, number, count=4)
    augment = settings.rand_augment
    change = [1.0 + settings.color_jitter * (2.0 * value - 1.0) for value in jitter]
    return View(
        box=_draw_box(settings, key, number, size=size),
        flip=settings.flip and flip < 0.5,
        brightness=change[0],
        contrast=change[1],
        saturation=change[2],
        rand_augment=None
        if augment is None
        else (augment, draw_integers("rand_augment", settings.seed, key, number)[0]),
    )


def render_view(image: Image.Image, view: View, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return the view as a model sees it: uint8 ``[H, W, 3]`` at the size of its preprocessing."""
    if view.box is None:
        return preprocessing.pixels(image)
    pixels = preprocessing.resize_box(image, view.box)
    if view == View(view.box):
        return pixels
    picture = Image.fromarray(pixels)
    if view.flip:
        picture = ImageOps.mirror(picture)
    if view.brightness != 1.0:
        picture = ImageEnhance.Brightness(picture).enhance(view.brightness)
    if view.contrast != 1.0:
        picture = ImageEnhance.Contrast(picture).enhance(view.contrast)
    if view.saturation != 1.0:
        picture = ImageEnhance.Color(picture).enhance(view.saturation)
    if view.rand_augment is not None:
        configuration, number = view.rand_augment
        with _global_generators(number):
            picture = _rand_augment(configuration)(picture)
    return np.array(picture)


@cache
def _rand_augment(configuration: str) -> Callable[[Image.Image], Image.Image]:
    """Return timm's RandAugment (Cubuk et al. 2019), which fills in grey at the borders."""
    from timm.data.auto_augment import rand_augment_transform

    transform: Callable[[Image.Image], Image.Image] = rand_augment_transform(
        configuration, {"img_mean": (128, 128, 128)}
    )
    return transform


@contextmanager
def _global_generators(number: int) -> Iterator[None]:
    """Seed Python's and numpy's global generators, and restore them afterwards.

    timm draws from them, but a view must neither depend on their state nor change it.
    """
    state, generator = random.getstate(), mtrand.get_bit_generator()
    random.seed(number)
    mtrand.set_bit_generator(np.random.Philox(key=number))
    try:
        yield
    finally:
        random.setstate(state)
        mtrand.set_bit_generator(generator)


def _draw_box(
    settings: ViewSettings, key: str, number: int, *, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    width, height = size
    low, high = math.log(settings.ratio[0]), math.log(settings.ratio[1])
    for attempt in range(_ATTEMPTS):
        share, stretch = draw_uniforms("box", settings.seed, key, number, attempt, count=2)
        area = (
            width * height * (settings.scale[0] + share * (settings.scale[1] - settings.scale[0]))
        )
        ratio = math.exp(low + stretch * (high - low))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            place = draw_integers("corner", settings.seed, key, number, attempt, count=2)
            left = place[0] % (width - box_width + 1)
            top = place[1] % (height - box_height + 1)
            return left, top, left + box_width, top + box_height
    ratio = min(max(width / height, settings.ratio[0]), settings.ratio[1])
    box_width = min(width, max(1, round(height * ratio)))
    box_height = min(height, max(1, round(width / ratio)))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height
