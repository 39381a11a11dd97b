"""Image towers from timm: names, pretrained weights and the preprocessing they expect."""

import difflib
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import get_pretrained_cfg, load_state_dict
from torch import Tensor, nn
from transformers import BaseImageProcessor, CLIPImageProcessorPil
from transformers.image_utils import PILImageResampling

from students.hub import find_file
from students.messages import ERRORS, shorten
from students.towers import ImageTower

# Arguments that the student sets itself.
_RESERVED = ("pretrained", "num_classes", "features_only", "checkpoint_path", "pretrained_cfg")


def check_name(backbone: str) -> None:
    """Refuse a name that timm does not know.

    Args:
        backbone: An architecture, or an architecture and a tag: ``resnet18.a1_in1k``.

    Raises:
        ValueError: The architecture or the tag is unknown. The message is one line and suggests
            the nearest names.
    """
    architecture, _, tag = backbone.partition(".")
    if not timm.is_model(architecture):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "see timm.list_models()"
        raise ValueError(f"student.image.backbone: timm has no model {backbone!r}; {hint}")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ValueError(
            f"student.image.backbone: timm has no weights {tag!r} for {architecture}; allowed are "
            f"{', '.join(tags) or 'none'}"
        )


def backbone_arguments(
    backbone: str, arguments: Mapping[str, Any], image_size: int | None
) -> dict[str, Any]:
    """Return the arguments for ``timm.create_model``, with ``img_size`` if the backbone takes it.

    Args:
        backbone: The backbone's timm name.
        arguments: The recipe's ``student.image.arguments``.
        image_size: Side of the pictures in pixels; ``None`` leaves it to the backbone.

    Raises:
        ValueError: The student sets an argument itself, or timm rejects the arguments. The
            message is one line.
    """
    if reserved := [name for name in arguments if name in _RESERVED]:
        raise ValueError(
            f"student.image.arguments: {', '.join(reserved)} cannot be set; the student sets it"
        )
    chosen = dict(arguments)
    if image_size is None or "img_size" in chosen:
        return chosen
    sized = {**chosen, "img_size": image_size}
    try:
        timm.create_model(backbone, pretrained=False, num_classes=0, **sized)
    except TypeError:
        # Convolutional networks take pictures of any size and lack this argument.
        return chosen
    except ERRORS as error:
        raise ValueError(_refused(backbone, f"with {sized}", error)) from error
    return sized


def create_image_tower(entry: Mapping[str, Any], *, width: int, size: int | None) -> ImageTower:
    """Create the image tower of a configuration, and try it on an empty picture.

    Args:
        entry: The entry ``image`` of a ``StudentConfig``.
        width: Width of the embeddings.
        size: Side of the pictures in pixels; ``None`` takes the size that timm trained with.

    Returns:
        The tower with new weights, in evaluation mode.

    Raises:
        ValueError: timm rejects the arguments, or the backbone does not turn a picture of this
            size into one vector of its stated width. The message is one line.
    """
    try:
        tower = ImageTower(entry, width).eval()
    except ERRORS as error:
        what = f"with {entry['arguments']}"
        raise ValueError(_refused(entry["backbone"], what, error)) from error
    height, breadth = _picture_size(tower.backbone, size)
    try:
        with torch.no_grad():
            features = tower.backbone(torch.zeros(1, 3, height, breadth))
    except ERRORS as error:
        what = f"for pictures of {height} x {breadth}"
        raise ValueError(_refused(entry["backbone"], what, error)) from error
    shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    if shape != (1, tower.width):
        raise ValueError(
            f"student.image: {entry['backbone']} returns {shape} for a picture, expected a single "
            f"vector of {tower.width} features; choose another backbone or other arguments"
        )
    return tower


def _picture_size(backbone: nn.Module, size: int | None) -> tuple[int, int]:
    """Return the height and width of a backbone's pictures: ``size``, or what timm trained with."""
    if size is not None:
        return size, size
    _, height, width = resolve_model_data_config(backbone)["input_size"]
    return int(height), int(width)


def image_processor_for(backbone: nn.Module, size: int | None) -> BaseImageProcessor:
    """Return the preprocessing that timm evaluates a backbone with, as a ``CLIPImageProcessor``.

    The shorter side is resized so that the centre crop keeps timm's ``crop_pct`` of it. In timm's
    crop mode ``squash``, both sides are resized in this way. A ``CLIPImageProcessor`` cannot
    express the mode ``border`` or pictures that are not square; they are stretched to the full
    size instead.

    Args:
        backbone: The timm model.
        size: Side of the pictures in pixels; ``None`` takes the size that timm trained with.
    """
    data = resolve_model_data_config(backbone)
    height, width = _picture_size(backbone, size)
    scaled = math.floor(height / data["crop_pct"])
    resized: dict[str, int] = {"shortest_edge": scaled}
    if data["crop_mode"] == "squash":
        resized = {"height": scaled, "width": scaled}
    if whole := data["crop_mode"] == "border" or height != width:
        resized = {"height": height, "width": width}
    return CLIPImageProcessorPil(
        size=resized,
        do_center_crop=not whole,
        crop_size={"height": height, "width": width},
        resample=_resampling(data["interpolation"]),
        image_mean=list(data["mean"]),
        image_std=list(data["std"]),
    )


def find_backbone_weights(backbone: str, weights: str | None) -> Path:
    """Return the file with a backbone's weights, downloading timm's own if necessary.

    Args:
        backbone: The backbone's timm name.
        weights: A local file or folder; ``None`` takes timm's weights from the hub.

    Raises:
        OSError: The file is missing, or the hub does not provide it. The message is one line.
        ValueError: timm has no weights for this name. The message is one line.
    """
    field = "student.image.weights"
    if weights is not None:
        path = Path(weights).expanduser()
        path = path / "model.safetensors" if path.is_dir() else path
        if not path.is_file():
            raise OSError(f"{field}: {path} is missing; give a file that timm saved")
        return path
    known = get_pretrained_cfg(backbone)
    if known is None or not known.hf_hub_id:
        raise ValueError(
            f"student.image: timm has no pretrained weights on the hub for {backbone}; set "
            f"student.image.pretrained: false, or set {field} to a local file"
        )
    files = [file for file in (known.hf_hub_filename, *_HUB_FILES) if file]
    return find_file(known.hf_hub_id, files, field=field)


def load_backbone(backbone: nn.Module, entry: Mapping[str, Any], file: Path) -> None:
    """Load weights in timm's format into a backbone, all of them or none.

    timm overlooks missing tensors when it drops the classifier. So the file is first loaded with
    its classifier, and the backbone's tensors are then copied strictly.

    Args:
        backbone: The backbone, without classifier.
        entry: The entry ``image`` of a ``StudentConfig``.
        file: The weights.

    Raises:
        OSError: The file cannot be read, or does not fit the backbone. The message is one line.
    """
    name = entry["backbone"]
    try:
        whole = _load_whole(name, dict(entry["arguments"]), file)
        wanted = backbone.state_dict()
        state = {key: value for key, value in whole.state_dict().items() if key in wanted}
        backbone.load_state_dict(state, strict=True)
    except Exception as error:  # Each file format has its own errors.
        reason = shorten(error)
        raise OSError(f"student.image.weights: {file} does not fit {name}: {reason}") from error


_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def _load_whole(name: str, arguments: dict[str, Any], file: Path) -> nn.Module:
    overlay: dict[str, Any] = {"file": str(file)}
    load = partial(timm.create_model, name, pretrained=True, **arguments)
    try:
        whole: nn.Module = load(pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError):
        # The classifier has another size than timm's own, or is missing.
        overlay |= {"num_classes": _count_classes(name, file), "label_offset": 0}
        whole = load(pretrained_cfg_overlay=overlay)
    return whole


def _count_classes(name: str, file: Path) -> int:
    known = get_pretrained_cfg(name)
    classifiers = () if known is None else (known.classifier or ())
    first = classifiers if isinstance(classifiers, str) else next(iter(classifiers), "")
    state = load_state_dict(str(file))
    for key in (f"{first}.weight", f"{first}.linear.weight", f"{first}.l.weight"):
        if key in state:
            return int(state[key].shape[0])
    return 0


def _resampling(interpolation: str) -> PILImageResampling:
    # timm's "random" draws bilinear or bicubic for each picture in training.
    return getattr(PILImageResampling, interpolation.upper(), PILImageResampling.BICUBIC)


def _refused(backbone: str, what: object, error: Exception) -> str:
    reason = shorten(error)
    return f"student.image: {backbone} cannot be built {what}: {reason}"
