"""Decode pictures of any kind to upright 8-bit RGB."""

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .errors import DataError, reason_of, visible
from .limits import MAX_PIXELS

ImageSource = bytes | str | os.PathLike[str] | Image.Image | np.ndarray

_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
_HINT = "JPEG, PNG, WebP, GIF, BMP and TIFF can be read"


def decode(
    source: ImageSource,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    draft: int | None = None,
) -> Image.Image:
    """Decode a picture to upright 8-bit RGB.

    The EXIF orientation is applied, transparency is filled with white, 16-bit grey is scaled to 8
    bits, and palettes, grey and CMYK are converted. Of an animation, the first frame is taken.

    Args:
        source: A path, the bytes of a file, a Pillow image, or RGB pixels as uint8 ``[H, W, 3]``.
        name: The picture's name in messages; ``None`` takes the path.
        max_pixels: A file with more pixels is refused before they are decoded.
        draft: Let the JPEG decoder halve the picture up to three times, as long as both sides
            keep this many pixels; ``None`` decodes at full size.

    Raises:
        DataError: The picture is missing, damaged, too large or in an unsupported format.

    Examples:
        >>> from export.runtime.decode import decode
        >>> decode("photo.jpg").mode
        'RGB'
    """
    label = visible(name or describe(source))
    if isinstance(source, np.ndarray):
        return _from_array(source, label)
    if isinstance(source, Image.Image):
        return _guarded(lambda: _to_rgb(source), label)
    if isinstance(source, bytes | bytearray | memoryview):
        return _guarded(lambda: _open(io.BytesIO(source), max_pixels, draft), label)
    if isinstance(source, str | os.PathLike):
        return _guarded(lambda: _open(Path(source), max_pixels, draft), label)
    raise DataError(
        f"{label}: found a {type(source).__name__}, expected a path, bytes, a Pillow image or a "
        "uint8 array [H, W, 3]"
    )


def describe(source: object) -> str:
    """Return a name for messages if the caller gives none."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"the picture ({len(source)} bytes in memory)"
    if isinstance(source, np.ndarray):
        return "the array"
    return str(getattr(source, "filename", "") or "the picture")


def _open(source: Path | io.BytesIO, max_pixels: int, draft: int | None) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns at half of its own limit. Here the caller sets the limit.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        opened = Image.open(source)
    with opened as image:
        if image.width * image.height > max_pixels:
            raise DataError(
                f"{image.width} x {image.height} pixels, more than the limit of {max_pixels:,}; "
                "save it smaller, or raise the limit (data.max_pixels in a recipe)"
            )
        if draft is not None:
            image.draft(None, (draft, draft))
        return _to_rgb(image)


def _guarded(read: Callable[[], Image.Image], label: str) -> Image.Image:
    try:
        image = read()
    except DataError as error:
        raise DataError(f"{label}: {error}") from error
    except FileNotFoundError as error:
        raise DataError(f"{label}: there is no such picture") from error
    except IsADirectoryError as error:
        raise DataError(f"{label}: found a folder, expected a picture") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{label}: not a picture, or damaged at its start; {_HINT}") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{label}: the picture cannot be read (over {MAX_PIXELS:,} pixels); save it smaller"
        ) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        raise DataError(f"{label}: the picture cannot be read ({reason_of(error)})") from error
    if min(image.size) < 1:
        raise DataError(f"{label}: the picture has no pixels ({image.width} x {image.height})")
    return image


def _from_array(pixels: np.ndarray, label: str) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(
            f"{label}: found {pixels.dtype} of shape {list(pixels.shape)}, expected RGB pixels as "
            "uint8 [H, W, 3]"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    image = _upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _SIXTEEN_BIT:
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DataError("floating-point pixels, whose range is unknown; save it with 8 or 16 bits")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # The pixels are intact even if the EXIF data is damaged.
        return image
