"""Translate image processors of transformers that only resize, crop, scale and normalise."""

from collections.abc import Mapping
from typing import Any

from .errors import BundleError

# Classes that only run the shared pipeline of transformers on pictures.
_PLAIN = (
    "BeitImageProcessor",
    "BitImageProcessor",
    "BlipImageProcessor",
    "CLIPImageProcessor",
    "ChineseCLIPImageProcessor",
    "DeiTImageProcessor",
    "MobileNetV1ImageProcessor",
    "MobileNetV2ImageProcessor",
    "OwlViTImageProcessor",
    "PvtImageProcessor",
    "SiglipImageProcessor",
    "ViTImageProcessor",
)
# Classes with a step of their own that is translated too.
_OWN_STEP = ("ConvNextImageProcessor", "EfficientNetImageProcessor", "LevitImageProcessor")
# Steps that are not supported.
_REFUSED = ("do_pad", "do_flip_channel_order", "rescale_offset", "include_top")

_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


def read_processor(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a processor's ``to_dict()`` to the keys of ``Preprocessing``.

    Raises:
        BundleError: The processor does something that ``Preprocessing`` cannot express.
    """
    kind = _kind(values)
    for key in _REFUSED:
        if values.get(key):
            raise _inexpressible(key, values[key], "null or false")
    geometry = _geometry(kind, values)
    normalise = values.get("do_normalize", True)
    return {
        **geometry,
        "crop_offset": "floor",
        "resample": _filter(values.get("resample", 2)),
        "mean": _channels(values, "image_mean") if normalise else [0.0, 0.0, 0.0],
        "std": _channels(values, "image_std") if normalise else [1.0, 1.0, 1.0],
        "rescale": values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0,
    }


def _kind(values: Mapping[str, Any]) -> str:
    kind = str(values.get("image_processor_type", "CLIPImageProcessor"))
    kind = kind.removesuffix("Fast").removesuffix("Pil")
    if kind not in _PLAIN + _OWN_STEP:
        known = ", ".join(
            name.removesuffix("ImageProcessor") for name in sorted(_PLAIN + _OWN_STEP)
        )
        raise _inexpressible("image_processor_type", kind, f"the image processor of {known}")
    return kind


def _geometry(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    crop = _sides(values, "crop_size") if values.get("do_center_crop") else None
    if not values.get("do_resize", True):
        return _placed("none", None, crop or _sides(values, "size"), crop is not None)
    size = values.get("size")
    if isinstance(size, Mapping) and size.keys() == {"shortest_edge"}:
        shortest = size["shortest_edge"]
        if kind == "ConvNextImageProcessor":
            return _convnext(shortest, values)
        if crop is None:
            raise _inexpressible(
                "size",
                dict(size),
                "height and width, or do_center_crop to get pictures of one size",
            )
        resize_to = int((256 / 224) * shortest) if kind == "LevitImageProcessor" else shortest
        return _placed("shortest", resize_to, crop, True)
    target = _sides(values, "size")
    if crop is None or crop == target:
        return _placed("square", None, target, False)
    if target[0] != target[1]:
        raise _inexpressible("size", size, "a square size, since do_center_crop is on")
    return _placed("square", target[0], crop, True)


def _convnext(shortest: int, values: Mapping[str, Any]) -> dict[str, Any]:
    # ConvNext resizes and crops in one step, and stretches to large sizes.
    if values.get("do_center_crop"):
        raise _inexpressible(
            "do_center_crop", True, "null or false, since its resize already crops"
        )
    size = [shortest, shortest]
    if shortest >= 384:
        return _placed("square", None, size, False)
    return _placed("shortest", int(shortest / values.get("crop_pct", 224 / 256)), size, True)


def _placed(resize: str, resize_to: int | None, size: list[int], crop: bool) -> dict[str, Any]:
    return {"size": size, "resize": resize, "resize_to": resize_to, "crop": crop}


def _sides(values: Mapping[str, Any], key: str) -> list[int]:
    sides = values.get(key)
    if not isinstance(sides, Mapping) or sides.keys() != {"height", "width"}:
        raise _inexpressible(
            key, sides, "height and width (for size, shortest_edge alone works too)"
        )
    return [sides["height"], sides["width"]]


def _channels(values: Mapping[str, Any], key: str) -> list[float]:
    channels = values.get(key)
    if isinstance(channels, int | float):
        return [channels] * 3
    if not isinstance(channels, list | tuple):
        raise _inexpressible(key, channels, "one number per channel")
    return list(channels)


def _filter(value: Any) -> str:
    if not isinstance(value, int) or not 0 <= value < len(_FILTERS):
        raise _inexpressible("resample", value, f"0 to {len(_FILTERS) - 1}")
    return _FILTERS[value]


def _inexpressible(key: str, found: Any, allowed: str) -> BundleError:
    return BundleError(
        f"image processor, {key}: found {' '.join(str(found).split())}, which is not supported; "
        f"expected {allowed}"
    )
