"""Resize, crop and normalise pictures, with Pillow and numpy alone.

Results equal those of transformers' PIL backend bit by bit. With ``crop_offset="round"`` they equal
those of torchvision on Pillow images.
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
from .limits import MAX_PIXELS


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of a model's pictures.

    Attributes:
        size: Height and width, in pixels, of the model's input.
        resize: ``"shortest"`` resizes the shorter side to ``resize_to`` and keeps the proportions,
            ``"square"`` stretches to a square, ``"none"`` does not resize.
        resize_to: Pixels of the shorter side or of the square's sides; ``None`` stretches straight
            to ``size``.
        crop: Whether to cut ``size`` out of the centre after the resize. Smaller pictures get
            black margins.
        crop_offset: How to round the crop's offset: ``"floor"`` is ``(L - S) // 2`` as in
            transformers, ``"round"`` is ``round((L - S) / 2)`` as in torchvision.
        resample: Pillow's filter.
        mean: Subtracted from each channel after ``rescale``.
        std: Each channel is then divided by it.
        rescale: Factor from 0..255 to the range of ``mean`` and ``std``.

    Raises:
        BundleError: The values contradict each other.

    Examples:
        >>> from export.runtime import EdgeModel
        >>> from export.runtime.decode import decode
        >>> preprocessing = EdgeModel.load("runs/mine/bundle").manifest.image.preprocessing
        >>> pixels = preprocessing.pixels(decode("photo.jpg"))
        >>> pixels.shape == (*preprocessing.size, 3)
        True
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
                "takes pictures of one size"
            )
        if self.resize == "square" and self.resize_to is not None and not self.crop:
            raise BundleError(
                "preprocessing.resize_to: a square without crop is resized straight to size; "
                f"expected null, found {self.resize_to}"
            )
        if self.resize == "none" and self.resize_to is not None:
            raise BundleError(
                f"preprocessing.resize_to: resize is 'none'; expected null, found {self.resize_to}"
            )

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Resize and crop a picture.

        Args:
            image: An RGB picture.

        Returns:
            Pixels of ``size``, uint8 ``[H, W, 3]``.

        Raises:
            DataError: The picture is too narrow to resize, or has another size and the model
                neither resizes nor crops.
        """
        height, width = self.size
        target = self._resized(image)
        if target != image.size:
            image = image.resize(target, self._filter)
        if self.crop:
            left = self._offset(image.width, width)
            top = self._offset(image.height, height)
            # Pillow fills everything outside the picture with black.
            image = image.crop((left, top, left + width, top + height))
        if image.size != (width, height):
            raise DataError(
                f"the picture is {image.width} x {image.height} pixels, but this model takes only "
                f"{width} x {height}, since it does not resize"
            )
        return np.array(image)

    def resize_box(self, image: Image.Image, box: tuple[float, float, float, float]) -> np.ndarray:
        """Resize a part of a picture straight to ``size``, as training does for random crops.

        Args:
            image: An RGB picture.
            box: Left, top, right and bottom of the part in pixels, fractions allowed.

        Returns:
            Pixels of ``size``, uint8 ``[H, W, 3]``.
        """
        height, width = self.size
        return np.array(image.resize((width, height), self._filter, box=box))

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Scale and normalise pixels.

        Args:
            pixels: uint8 ``[N, H, W, 3]``.

        Returns:
            float32 ``[N, 3, H, W]``.

        Raises:
            ValueError: ``pixels`` has another type or shape.
        """
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
        """Return the values as a dictionary for JSON."""
        values = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    @classmethod
    def from_dict(cls, values: Any) -> "Preprocessing":
        """Read what ``to_dict`` returned.

        Raises:
            BundleError: A key is missing or unknown, or a value is invalid.
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
        """Translate an image processor of transformers.

        Args:
            values: What the processor's ``to_dict()`` returns.

        Raises:
            BundleError: The processor does something that ``Preprocessing`` cannot express.
        """
        return cls.from_dict(read_processor(values))

    @property
    def _filter(self) -> Image.Resampling:
        return Image.Resampling[self.resample.upper()]

    @cached_property
    def _table(self) -> np.ndarray:
        # float32 [3, 256]: all values of a pixel, rounded in the same order as in transformers.
        scaled = (np.arange(256, dtype=np.float64) * self.rescale).astype(np.float32)
        mean = np.array(self.mean, np.float32)[:, None]
        std = np.array(self.std, np.float32)[:, None]
        return (scaled - mean) / std

    def _resized(self, image: Image.Image) -> tuple[int, int]:
        """Return width and height after the resize."""
        if self.resize == "none":
            return image.size
        if self.resize == "square":
            height, width = self.size
            return (width, height) if self.resize_to is None else (self.resize_to, self.resize_to)
        short, long = sorted(image.size)
        new_short = cast(int, self.resize_to)
        new_long = int(new_short * long / short)
        if new_short * new_long > MAX_PIXELS:
            raise DataError(
                f"the picture is {image.width} x {image.height} pixels, too narrow to resize its "
                f"shorter side to {new_short}"
            )
        return (new_short, new_long) if image.width <= image.height else (new_long, new_short)

    def _offset(self, length: int, size: int) -> int:
        if self.crop_offset == "floor":
            return (length - size) // 2
        # torchvision pads a short side before it crops, and rounds the margin down.
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
