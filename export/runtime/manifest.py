"""``manifest.json``, format 1: what a bundle contains and which inputs it takes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from . import _fields as fields
from .errors import BundleError, reason_of
from .preprocess import Preprocessing

_FORMAT = 1
FILE = "manifest.json"


@dataclass(frozen=True)
class ImagePart:
    """The image tower of a bundle.

    Attributes:
        file: Name of the ONNX graph in the bundle.
        input: Name of the graph's input, uint8 ``[N, H, W, 3]``; the graph scales and normalises.
        output: Name of the graph's output, float32 ``[N, width]``, L2-normalised.
        width: Width of the embeddings.
        preprocessing: How to turn a picture into the input.
    """

    file: str
    input: str
    output: str
    width: int
    preprocessing: Preprocessing


@dataclass(frozen=True)
class TextPart:
    """The text tower of a bundle.

    Attributes:
        file: Name of the ONNX graph in the bundle.
        tokenizer: Name of the tokenizer's file in the bundle.
        inputs: Names of the graph's inputs, token ids and mask, both int64 ``[N, L]``.
        output: Name of the graph's output, float32 ``[N, width]``, L2-normalised.
        width: Width of the embeddings.
        context_length: The largest number of tokens in a text; longer texts are cut.
        padding: Pad to the ``"longest"`` text of a batch, or to the ``"full"`` context length.
        pad_token_id: The token that texts are padded with.
        mask_padding: Whether the mask is 0 at padding; otherwise it is 1 everywhere.
    """

    file: str
    tokenizer: str
    inputs: tuple[str, str]
    output: str
    width: int
    context_length: int
    padding: Literal["longest", "full"]
    pad_token_id: int
    mask_padding: bool


@dataclass(frozen=True)
class LabelPart:
    """The labels that a bundle carries.

    Attributes:
        file: Name of the file with their embeddings, a ``.npy`` of float32 ``[N, width]``.
        sha256: Digest of that file, in hexadecimal.
        names: The label of each row.
    """

    file: str
    sha256: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """The description of a bundle. One of the towers may be absent.

    Attributes:
        name: The name of the model.
        created_by: The program that wrote the bundle, with its version.
        image: The image tower, or ``None``.
        text: The text tower, or ``None``.
        logit_scale: Factor for cosine similarities before the softmax.
        logit_bias: Added to the scaled similarities.
        templates: Prompts, each with ``{}`` for the label. A label's embedding is the normalised
            mean over its prompts.
        labels: The labels that the bundle carries, embedded with the templates, or ``None``.
    """

    name: str
    created_by: str
    image: ImagePart | None
    text: TextPart | None
    logit_scale: float
    logit_bias: float
    templates: tuple[str, ...]
    labels: LabelPart | None = None

    @property
    def width(self) -> int:
        """Width of the embeddings."""
        part = self.image or self.text
        assert part is not None
        return part.width

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files in the bundle, the manifest included."""
        image = () if self.image is None else (self.image.file,)
        text = () if self.text is None else (self.text.file, self.text.tokenizer)
        labels = () if self.labels is None else (self.labels.file,)
        return (FILE, *image, *text, *labels)


def read(folder: Path) -> Manifest:
    """Read and check the manifest of a bundle.

    Args:
        folder: The bundle.

    Raises:
        BundleError: The folder is not a bundle, its format is unknown to this version, or its
            manifest is invalid.
    """
    path = folder / FILE
    if not folder.is_dir():
        raise BundleError(
            f"{folder}: no such folder; a bundle is a folder that `clip-distill export` writes"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder}: {FILE} is missing, so it is not a bundle; `clip-distill export` writes one"
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read as JSON ({reason_of(error)})") from error
    try:
        return _parse(values)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a bundle into ``folder``."""
    values = _values(manifest)
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def check_templates(templates: Any, where: str) -> tuple[str, ...]:
    """Check prompt templates, and return them as a tuple.

    Args:
        templates: A list of texts, each with ``{}`` once, where the label goes.
        where: The field that they are in, for messages.

    Raises:
        BundleError: The list is empty, or a template is invalid.
    """
    found = fields.sequence(templates, where)
    if not found:
        raise BundleError(f"{where}: expected at least one template, such as 'a photo of a {{}}.'")
    for template in found:
        if fields.text(template, where).count("{}") != 1:
            raise BundleError(
                f"{where}: found {template!r}, expected a text with {{}} once, where the label goes"
            )
    return tuple(found)


def _values(manifest: Manifest) -> dict[str, Any]:
    image, text, labels = manifest.image, manifest.text, manifest.labels
    # Runtimes that do not know the key still read bundles without labels.
    carried = {} if labels is None else {"labels": {**vars(labels), "names": list(labels.names)}}
    return {
        "format": _FORMAT,
        "name": manifest.name,
        "created_by": manifest.created_by,
        "image": None
        if image is None
        else {**vars(image), "preprocessing": image.preprocessing.to_dict()},
        "text": None if text is None else {**vars(text), "inputs": list(text.inputs)},
        "logit_scale": manifest.logit_scale,
        "logit_bias": manifest.logit_bias,
        "templates": list(manifest.templates),
        **carried,
    }


def _parse(values: Any) -> Manifest:
    # Check the format first, since other formats may have other keys.
    found = values.get("format") if isinstance(values, dict) else None
    if isinstance(found, bool) or found != _FORMAT:
        raise BundleError(
            f"format: found {found!r}, and this version reads {_FORMAT}; export the student again, "
            "or install the version of clip-distill that wrote the bundle"
        )
    keys = ("format", *(key for key in Manifest.__dataclass_fields__ if key != "labels"))
    values = fields.mapping(values, "the manifest", required=keys, optional=("labels",))
    image = None if values["image"] is None else _image_part(values["image"])
    text = None if values["text"] is None else _text_part(values["text"])
    if image is None and text is None:
        raise BundleError("image and text are both null; a bundle has at least one tower")
    if image is not None and text is not None and image.width != text.width:
        raise BundleError(
            f"text.width: found {text.width}, expected {image.width}, the width of the image tower"
        )
    return Manifest(
        name=fields.text(values["name"], "name"),
        created_by=fields.text(values["created_by"], "created_by"),
        image=image,
        text=text,
        logit_scale=fields.number(values["logit_scale"], "logit_scale", positive=True),
        logit_bias=fields.number(values["logit_bias"], "logit_bias"),
        templates=check_templates(values["templates"], "templates"),
        labels=None if values.get("labels") is None else _label_part(values["labels"]),
    )


def _image_part(values: Any) -> ImagePart:
    values = fields.mapping(values, "image", required=tuple(ImagePart.__dataclass_fields__))
    try:
        preprocessing = Preprocessing.from_dict(values["preprocessing"])
    except BundleError as error:
        raise BundleError(f"image.{error}") from error
    return ImagePart(
        file=_file(values["file"], "image.file"),
        input=fields.text(values["input"], "image.input"),
        output=fields.text(values["output"], "image.output"),
        width=fields.integer(values["width"], "image.width", minimum=1),
        preprocessing=preprocessing,
    )


def _text_part(values: Any) -> TextPart:
    values = fields.mapping(values, "text", required=tuple(TextPart.__dataclass_fields__))
    ids, mask = fields.sequence(values["inputs"], "text.inputs", length=2)
    padding = fields.choice(values["padding"], "text.padding", allowed=("longest", "full"))
    return TextPart(
        file=_file(values["file"], "text.file"),
        tokenizer=_file(values["tokenizer"], "text.tokenizer"),
        inputs=(fields.text(ids, "text.inputs"), fields.text(mask, "text.inputs")),
        output=fields.text(values["output"], "text.output"),
        width=fields.integer(values["width"], "text.width", minimum=1),
        context_length=fields.integer(values["context_length"], "text.context_length", minimum=1),
        padding=cast(Literal["longest", "full"], padding),
        pad_token_id=fields.integer(values["pad_token_id"], "text.pad_token_id"),
        mask_padding=fields.flag(values["mask_padding"], "text.mask_padding"),
    )


def _label_part(values: Any) -> LabelPart:
    values = fields.mapping(values, "labels", required=tuple(LabelPart.__dataclass_fields__))
    names = tuple(
        fields.text(name, "labels.names")
        for name in fields.sequence(values["names"], "labels.names")
    )
    if not names or len(set(names)) < len(names):
        raise BundleError("labels.names: expected at least one label, and each label once")
    return LabelPart(
        file=_file(values["file"], "labels.file"),
        sha256=fields.text(values["sha256"], "labels.sha256"),
        names=names,
    )


def _file(value: Any, where: str) -> str:
    name = fields.text(value, where)
    # A bundle reads nothing outside its folder.
    if Path(name).name != name or name == ".." or "\\" in name:
        raise BundleError(f"{where}: found {name!r}, expected the name of a file in the bundle")
    return name
