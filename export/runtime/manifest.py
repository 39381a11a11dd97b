"""``manifest.json``, format 1: what a bundle holds and how it wants to be fed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from . import _fields as fields
from .errors import BundleError
from .preprocess import Preprocessing

_FORMAT = 1
FILE = "manifest.json"


@dataclass(frozen=True)
class ImagePart:
    """The image tower of a bundle.

    Attributes:
        file: The ONNX graph, beside the manifest.
        input: Name of its input, uint8 ``[N, H, W, 3]``; the graph scales and normalises.
        output: Name of its output, float32 ``[N, width]``, L2-normalised.
        width: Width of the embeddings.
        preprocessing: How a picture becomes the input.
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
        file: The ONNX graph, beside the manifest.
        tokenizer: The tokenizer's file, beside the manifest.
        inputs: Names of its inputs, token ids and mask, both int64 ``[N, L]``.
        output: Name of its output, float32 ``[N, width]``, L2-normalised.
        width: Width of the embeddings.
        context_length: The most tokens that a text may have; what is longer is cut.
        padding: To the ``"longest"`` text of a batch, or to ``"full"`` context length.
        pad_token_id: What padding is made of.
        mask_padding: Whether the mask is 0 at padding; else it is 1 everywhere.
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
        file: Their embeddings beside the manifest, a ``.npy`` of float32 ``[N, width]``.
        sha256: Digest of that file, in hexadecimal.
        names: The label of each row.
    """

    file: str
    sha256: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """A bundle's description; one of the towers may be absent.

    Attributes:
        name: What the model is called.
        created_by: The program that wrote the bundle, with its version.
        image: The image tower, or ``None``.
        text: The text tower, or ``None``.
        logit_scale: What similarities are multiplied by before the softmax.
        logit_bias: What is then added.
        templates: Prompts, each with ``{}`` for the label; their embeddings are averaged.
        labels: The labels that it carries, embedded with the templates, or ``None``.
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
        """The files that the bundle consists of, the manifest among them."""
        image = () if self.image is None else (self.image.file,)
        text = () if self.text is None else (self.text.file, self.text.tokenizer)
        labels = () if self.labels is None else (self.labels.file,)
        return (FILE, *image, *text, *labels)


def read(folder: Path) -> Manifest:
    """Read and check the manifest of a bundle.

    Raises:
        BundleError: The folder is no bundle, of a format that this version does not know, or its
            manifest says something that cannot be.
    """
    path = folder / FILE
    if not folder.is_dir():
        raise BundleError(
            f"{folder}: no such folder; a bundle is a folder that `clip-distill export` has written"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder}: {FILE} is missing, so it is no bundle; `clip-distill export` writes one"
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read as JSON ({_line(error)})") from error
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
    """Give prompts that each have a place for the label.

    Raises:
        BundleError: There is none, or one lacks ``{}``.
    """
    found = fields.sequence(templates, where)
    if not found:
        raise BundleError(f"{where}: expected at least one, such as 'a photo of a {{}}.'")
    for template in found:
        if fields.text(template, where).count("{}") != 1:
            raise BundleError(
                f"{where}: found {template!r}, expected a text with {{}} once, where the label goes"
            )
    return tuple(found)


def _values(manifest: Manifest) -> dict[str, Any]:
    image, text, labels = manifest.image, manifest.text, manifest.labels
    # Bundles without labels stay readable for runtimes that know of none.
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
    # The format comes first: another one may well have other keys.
    found = values.get("format") if isinstance(values, dict) else None
    if isinstance(found, bool) or found != _FORMAT:
        raise BundleError(
            f"format: found {found!r}, and this version reads {_FORMAT}; export the student again, "
            "or install the clip-distill that wrote the bundle"
        )
    keys = ("format", *(key for key in Manifest.__dataclass_fields__ if key != "labels"))
    values = fields.mapping(values, "the manifest", required=keys, optional=("labels",))
    image = None if values["image"] is None else _image_part(values["image"])
    text = None if values["text"] is None else _text_part(values["text"])
    if image is None and text is None:
        raise BundleError("image and text are both null; a bundle has at least one tower")
    if image is not None and text is not None and image.width != text.width:
        raise BundleError(
            f"text.width: found {text.width}, expected {image.width} as for the image tower"
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
        raise BundleError("labels.names: expected at least one label, each of them once")
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


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
