"""Whether a bundle gives what the student gives: graphs, preprocessing and tokenizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image
from torch import Tensor

from export.graph import IMAGE_INPUT, cause
from export.runtime.errors import BundleError, ExportError
from export.runtime.manifest import TextPart
from export.runtime.preprocess import Preprocessing
from export.runtime.session import open_session, run_graph
from export.runtime.tokenizer import Tokenizer
from students.encoder import Student, embed_images, embed_texts, tokenize

_BATCHES = (1, 3, 2)
# Width and height: square, wide, tall with odd sides, smaller than a pixel of some models' patch.
_PICTURES = ((64, 64), (301, 127), (97, 203), (3, 5))
_TEXTS = (
    "a photo of a cat.",
    "",
    "A",
    "  Two dogs,\n running -- over the GRASS!  ",
    "Ein Bär über Ånderø: naïve café, 東京 🙂",
    "it's 3.5 %  of\tthe <s> [SEP] </s> tokens",
    "many words " * 600,
)


@dataclass(frozen=True)
class _Probe:
    """What goes into a graph, and what the student makes of the same.

    Attributes:
        inputs: The graph's inputs by name.
        expected: The student's embeddings, float32 ``[N, D]``.
    """

    inputs: Mapping[str, np.ndarray]
    expected: np.ndarray


@torch.no_grad()
def image_probes(student: Student, preprocessing: Preprocessing) -> list[_Probe]:
    """Run pictures of noise through the student's image tower, in batches of several sizes.

    Raises:
        ExportError: The image processor's pictures are of a size that the tower does not take.
    """
    generator = np.random.default_rng(0)
    probes = []
    for batch in _BATCHES:
        noise = generator.integers(0, 256, (batch, *preprocessing.size, 3), np.uint8)
        # A picture without contrast is where a normalisation that is off shows most.
        noise[0] //= 8
        values = torch.from_numpy(preprocessing.normalise(noise))
        try:
            embeddings = embed_images(student.model, values)
        except Exception as error:  # Whatever a model's own code raises.
            height, width = preprocessing.size
            raise ExportError(
                f"preprocessor_config.json: the image tower does not take pictures of {width} x "
                f"{height} pixels ({cause(error)})"
            ) from error
        probes.append(_Probe({IMAGE_INPUT: noise}, embeddings.numpy()))
    return probes


@torch.no_grad()
def text_probes(student: Student) -> list[_Probe]:
    """Run texts through the student's text tower, of one token and of its full context length."""
    assert student.tokenizer is not None
    length = student.context_length
    tokens = [
        tokenize(student.tokenizer, texts, context_length=length, padding=student.padding)
        for texts in ([_TEXTS[0]], _TEXTS)
    ]
    long_ids = tokens[1]["input_ids"]
    # Cut by hand: a tokenizer adds marks of its own to the shortest text.
    shapes = [(1, 1), (3, 2), (2, 3), (1, long_ids.shape[1]), (3, min(9, long_ids.shape[1]))]
    for batch, columns in shapes:
        ids = long_ids[-batch:, :columns].contiguous()
        mask = torch.ones_like(ids)
        mask[0, (columns + 1) // 2 :] = 0
        tokens.append({"input_ids": ids, "attention_mask": mask})
    return [
        _Probe(
            {name: tensor.numpy() for name, tensor in entry.items()},
            embed_texts(student.model, entry).numpy(),
        )
        for entry in tokens
    ]


def largest_difference(path: Path, probes: Sequence[_Probe], *, output: str) -> float:
    """Give the largest absolute difference between a graph's embeddings and the student's.

    It is infinite where either of them is no number.

    Raises:
        ExportError: The graph cannot be run, or gives embeddings of another shape.
    """
    try:
        session = open_session(path)
        return max(_difference(session, path, probe, output) for probe in probes)
    except BundleError as error:
        raise ExportError(f"the exported graph does not run: {error}") from error


def _difference(
    session: onnxruntime.InferenceSession, path: Path, probe: _Probe, output: str
) -> float:
    found = run_graph(session, path, output, dict(probe.inputs))
    if found.shape != probe.expected.shape:
        raise ExportError(
            f"{path.name}: embeddings have shape {list(found.shape)}, the student's have "
            f"{list(probe.expected.shape)}"
        )
    difference = float(np.abs(found.astype(np.float64) - probe.expected).max())
    # A comparison with nan is false, which would pass for agreement.
    return difference if np.isfinite(difference) else float("inf")


def check_difference(difference: float, *, file: str, tolerance: float) -> None:
    """Refuse a graph that differs by more than ``tolerance``.

    Raises:
        ExportError: It does.
    """
    if not difference <= tolerance:
        raise ExportError(
            f"{file}: its embeddings differ from the student's by up to {difference:.2g}, and "
            f"{tolerance:.2g} is allowed; if that is good enough for you, raise export.tolerance"
        )


def check_preprocessing(student: Student, preprocessing: Preprocessing) -> None:
    """Refuse an image processor whose results the runtime does not reproduce to the bit.

    Raises:
        ExportError: The results differ.
    """
    assert student.image_processor is not None
    generator = np.random.default_rng(1)
    fixed = preprocessing.resize == "none" and not preprocessing.crop
    for width, height in (preprocessing.size[::-1], *(() if fixed else _PICTURES)):
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8))
        expected = student.image_processor(image, return_tensors="np")["pixel_values"]
        found = preprocessing.normalise(preprocessing.pixels(image)[None])
        if not np.array_equal(found, expected):
            kind = type(student.image_processor).__name__
            raise ExportError(
                f"preprocessor_config.json: {kind} makes something else of a picture of {width} x "
                f"{height} pixels than resizing, cropping and normalising, which is all that a "
                "bundle can do"
            )


def check_tokenizer(student: Student, part: TextPart, path: Path) -> None:
    """Refuse a tokenizer whose ids or mask the runtime does not reproduce.

    Raises:
        ExportError: They differ.
    """
    assert student.tokenizer is not None
    runtime = Tokenizer(path, part)
    for texts in (_TEXTS, *([text] for text in _TEXTS)):
        expected: Mapping[str, Tensor] = tokenize(
            student.tokenizer,
            list(texts),
            context_length=student.context_length,
            padding=student.padding,
        )
        found = runtime(texts)
        if any(not np.array_equal(found[name], expected[name].numpy()) for name in found):
            kind = type(student.tokenizer).__name__
            raise ExportError(
                f"{path.name}: {kind} gives other tokens for {texts[0][:40]!r} than its file does; "
                "a bundle needs a tokenizer that pads and cuts on the right and does all its work "
                "in tokenizer.json"
            )
