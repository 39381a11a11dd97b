"""timm backbones: by name, with weights that are checked, and the preprocessing they expect."""

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

# What the student itself decides about.
_RESERVED = ("pretrained", "num_classes", "features_only", "checkpoint_path", "pretrained_cfg")


def check_name(backbone: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        ValueError: The architecture or its tag is unknown; the line gives the nearest names.
    """
    architecture, _, tag = backbone.partition(".")
    if not timm.is_model(architecture):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "see timm.list_models()"
        raise ValueError(f"student.image.backbone: timm has no model {backbone!r}; {hint}")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ValueError(
            f"student.image.backbone: {architecture} has no weights named {tag!r}; allowed are "
            f"{', '.join(tags) or 'none'}"
        )


def backbone_arguments(
    backbone: str, arguments: Mapping[str, Any], image_size: int | None
) -> dict[str, Any]:
    """Arguments for ``timm.create_model``, with ``img_size`` where the architecture takes it.

    Raises:
        ValueError: An argument is one that the student decides about, or timm refuses it.
    """
    if reserved := [name for name in arguments if name in _RESERVED]:
        raise ValueError(
            f"student.image.arguments: {', '.join(reserved)} cannot be set here, the student does"
        )
    chosen = dict(arguments)
    if image_size is None or "img_size" in chosen:
        return chosen
    sized = {**chosen, "img_size": image_size}
    try:
        timm.create_model(backbone, pretrained=False, num_classes=0, **sized)
    except TypeError:
        # Convolutions take pictures of any size and know no such argument.
        return chosen
    except ERRORS as error:
        raise ValueError(_refused(backbone, sized, error)) from error
    return sized


def create_image_tower(entry: Mapping[str, Any], *, width: int, size: int | None) -> ImageTower:
    """The image tower of a configuration, tried once on an empty picture.

    Raises:
        ValueError: timm refuses the arguments, or the backbone does not give one vector of its
            stated width for a picture of this size; one line.
    """
    try:
        tower = ImageTower(entry, width).eval()
    except ERRORS as error:
        raise ValueError(_refused(entry["backbone"], entry["arguments"], error)) from error
    height, breadth = _picture_size(tower.backbone, size)
    try:
        with torch.no_grad():
            features = tower.backbone(torch.zeros(1, 3, height, breadth))
    except ERRORS as error:
        what = f"pictures of {height} x {breadth}"
        raise ValueError(_refused(entry["backbone"], what, error)) from error
    shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    if shape != (1, tower.width):
        raise ValueError(
            f"student.image: {entry['backbone']} gives {shape} for a picture and not the "
            f"{tower.width} features of a single vector; take another backbone or other arguments"
        )
    return tower


def _picture_size(backbone: nn.Module, size: int | None) -> tuple[int, int]:
    """Height and width that a backbone sees: ``size`` if given, else what timm trained it with."""
    if size is not None:
        return size, size
    _, height, width = resolve_model_data_config(backbone)["input_size"]
    return int(height), int(width)


def image_processor_for(backbone: nn.Module, size: int | None) -> BaseImageProcessor:
    """Preprocessing as timm evaluates a backbone, in the terms of a ``CLIPImageProcessor``.

    The shorter side is resized so that the centre crop leaves timm's ``crop_pct`` of it; in the
    mode ``squash`` both sides are. The mode ``border`` and models of oblong pictures cannot be
    expressed so: they see the whole picture, stretched.
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
    """The file with a backbone's weights: the one given, or timm's own from the hub.

    Raises:
        OSError: The file is not there, or the hub does not give it; one line.
        ValueError: timm has no weights for this name; one line.
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
            f"student.image.pretrained: false, or give a local file as {field}"
        )
    files = [file for file in (known.hf_hub_filename, *_HUB_FILES) if file]
    return find_file(known.hf_hub_id, files, field=field)


def load_backbone(backbone: nn.Module, entry: Mapping[str, Any], file: Path) -> None:
    """Put weights in timm's format into a backbone; each of its tensors must be among them.

    timm itself overlooks missing tensors as soon as a classifier is left away. So the file is
    first read whole, classifier and all, and its features are then taken over strictly.

    Raises:
        OSError: The file cannot be read, or does not fit the backbone; one line.
    """
    name = entry["backbone"]
    try:
        whole = _load_whole(name, dict(entry["arguments"]), file)
        wanted = backbone.state_dict()
        state = {key: value for key, value in whole.state_dict().items() if key in wanted}
        backbone.load_state_dict(state, strict=True)
    except Exception as error:  # each file format has its own errors
        reason = shorten(error)
        raise OSError(f"student.image.weights: {file} does not fit {name}: {reason}") from error


_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def _load_whole(name: str, arguments: dict[str, Any], file: Path) -> nn.Module:
    overlay: dict[str, Any] = {"file": str(file)}
    load = partial(timm.create_model, name, pretrained=True, **arguments)
    try:
        whole: nn.Module = load(pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError):
        # A classifier of another size than timm's own, or none at all.
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
    # timm's "random" means bilinear or bicubic, drawn anew in training.
    return getattr(PILImageResampling, interpolation.upper(), PILImageResampling.BICUBIC)


def _refused(backbone: str, what: object, error: Exception) -> str:
    reason = shorten(error)
    return f"student.image: {backbone} cannot be built for {what}: {reason}"
