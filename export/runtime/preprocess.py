"""From a picture to what a model sees: the one implementation, in Pillow and numpy.

Its results are those of transformers' PIL backend to the bit, or of torchvision on Pillow images
where ``crop_offset`` is ``"round"``.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, cast, get_args, get_type_hints

import numpy as np
from PIL import Image

from . import _fields as fields
from ._processors import read_processor
from .errors import BundleError, DataError

# Pillow's own limit for pictures that it opens; a resize to more than that is a mistake as well.
_MOST_PIXELS = 178_956_970


@dataclass(frozen=True)
class Preprocessing:
    """What a model wants done to a picture, and the doing of it.

    Attributes:
        size: Height and width, in pixels, of what the model sees.
        resize: ``"shortest"`` keeps the proportions and brings the shorter side to ``resize_to``,
            ``"square"`` stretches, ``"none"`` leaves the picture's size alone.
        resize_to: Pixels of the shorter side, or of both sides of the square; ``None`` is a
            square straight to ``size``.
        crop: Cut ``size`` out of the middle after the resize; what is smaller gets black margins.
        crop_offset: How half a pixel is rounded: ``"floor"`` is ``(L - S) // 2`` as in
            transformers, ``"round"`` is ``round((L - S) / 2)`` as in torchvision.
        resample: Pillow's filter.
        mean: Subtracted from each channel after ``rescale``.
        std: What each channel is then divided by.
        rescale: Factor from 0..255 to the range that ``mean`` and ``std`` are given in.

    Raises:
        BundleError: The values contradict each other.
    """

    size: tuple[int, int]
    resize: Literal["shortest", "square", "none"]
    resize_to: int | None
    crop: bool
    crop_offset: Literal["floor", "round"]
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float = 1 / 255

    def __post_init__(self) -> None:
        if self.resize == "shortest" and (self.resize_to is None or not self.crop):
            raise BundleError(
                "preprocessing.resize: 'shortest' needs resize_to and crop: true, since a model "
                "sees pictures of one size"
            )
        if self.resize == "square" and self.resize_to is not None and not self.crop:
            raise BundleError(
                "preprocessing.resize_to: a square that is not cropped goes straight to size, "
                f"expected null, found {self.resize_to}"
            )
        if self.resize == "none" and self.resize_to is not None:
            raise BundleError(
                f"preprocessing.resize_to: resize is 'none', expected null, found {self.resize_to}"
            )

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Resize and crop an RGB picture; uint8 ``[H, W, 3]`` of ``size``.

        Raises:
            DataError: The picture is too narrow to resize, or not of the size that a model
                without a resize needs.
        """
        height, width = self.size
        target = self._resized(image)
        if target != image.size:
            image = image.resize(target, self._filter)
        if self.crop:
            left = self._offset(image.width, width)
            top = self._offset(image.height, height)
            # Pillow fills with black what lies outside.
            image = image.crop((left, top, left + width, top + height))
        if image.size != (width, height):
            raise DataError(
                f"the picture is {image.width} x {image.height} pixels, and this model takes only "
                f"{width} x {height}, since it resizes nothing"
            )
        return np.array(image)

    def resize_box(self, image: Image.Image, box: tuple[float, float, float, float]) -> np.ndarray:
        """Resize a part of an RGB picture straight to ``size``; uint8 ``[H, W, 3]``.

        Args:
            image: The RGB picture.
            box: Left, top, right and bottom of the part in pixels, fractions allowed.
        """
        height, width = self.size
        return np.array(image.resize((width, height), self._filter, box=box))

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Scale and normalise uint8 ``[N, H, W, 3]`` to float32 ``[N, 3, H, W]``."""
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ValueError(
                f"expected uint8 [N, H, W, 3], found {pixels.dtype} {list(pixels.shape)}"
            )
        count, height, width, channels = pixels.shape
        result = np.empty((count, channels, height, width), np.float32)
        for channel, values in enumerate(self._table):
            result[:, channel] = values[pixels[..., channel]]
        return result

    def to_dict(self) -> dict[str, Any]:
        """Give the values as JSON can hold them."""
        values = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    @classmethod
    def from_dict(cls, values: Any) -> "Preprocessing":
        """Read what ``to_dict`` gave, and nothing else.

        Raises:
            BundleError: A key is missing or unknown, or a value is none that it can have.
        """
        where = "preprocessing"
        keys = tuple(cls.__dataclass_fields__)
        values = fields.mapping(values, where, required=keys)
        height, width = fields.sequence(values["size"], f"{where}.size", length=2)
        resize_to = values["resize_to"]
        return cls(
            size=(
                fields.integer(height, f"{where}.size", minimum=1),
                fields.integer(width, f"{where}.size", minimum=1),
            ),
            resize=_word(values, "resize"),
            resize_to=None
            if resize_to is None
            else fields.integer(resize_to, f"{where}.resize_to", minimum=1),
            crop=fields.flag(values["crop"], f"{where}.crop"),
            crop_offset=_word(values, "crop_offset"),
            resample=_word(values, "resample"),
            mean=_channels(values["mean"], f"{where}.mean"),
            std=_channels(values["std"], f"{where}.std", positive=True),
            rescale=fields.number(values["rescale"], f"{where}.rescale", positive=True),
        )

    @classmethod
    def from_processor(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Read what a transformers image processor's ``to_dict()`` gives.

        Raises:
            BundleError: The processor does something that cannot be expressed here.
        """
        return cls.from_dict(read_processor(values))

    @property
    def _filter(self) -> Image.Resampling:
        return Image.Resampling[self.resample.upper()]

    @cached_property
    def _table(self) -> np.ndarray:
        # float32 [3, 256]: every value that a pixel can have, in transformers' order of rounding.
        scaled = (np.arange(256, dtype=np.float64) * self.rescale).astype(np.float32)
        mean = np.array(self.mean, np.float32)[:, None]
        std = np.array(self.std, np.float32)[:, None]
        return (scaled - mean) / std

    def _resized(self, image: Image.Image) -> tuple[int, int]:
        """Width and height after the resize."""
        if self.resize == "none":
            return image.size
        if self.resize == "square":
            height, width = self.size
            return (width, height) if self.resize_to is None else (self.resize_to, self.resize_to)
        short, long = sorted(image.size)
        new_short = cast(int, self.resize_to)
        new_long = int(new_short * long / short)
        if new_short * new_long > _MOST_PIXELS:
            raise DataError(
                f"the picture is {image.width} x {image.height} pixels, too narrow to bring its "
                f"shorter side to {new_short}"
            )
        return (new_short, new_long) if image.width <= image.height else (new_long, new_short)

    def _offset(self, length: int, size: int) -> int:
        if self.crop_offset == "floor":
            return (length - size) // 2
        # torchvision pads a short side before it crops, and rounds its margin down.
        return round((length - size) / 2) if length >= size else -((size - length) // 2)


def _word(values: Mapping[str, Any], name: str) -> Any:
    """Return one of the words that a field's type allows."""
    allowed = get_args(get_type_hints(Preprocessing)[name])
    return fields.choice(values[name], f"preprocessing.{name}", allowed=allowed)


def _channels(value: Any, where: str, *, positive: bool = False) -> tuple[float, float, float]:
    red, green, blue = fields.sequence(value, where, length=3)
    return (
        fields.number(red, where, positive=positive),
        fields.number(green, where, positive=positive),
        fields.number(blue, where, positive=positive),
    )
