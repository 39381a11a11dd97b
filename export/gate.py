"""The gate of a bundle: its graphs, preprocessing and tokenizer must agree with the student."""

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
# Width and height: square, wide, tall with odd sides, smaller than a patch.
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
    """Inputs of a graph, and the student's embeddings of the same inputs.

    Attributes:
        inputs: The graph's inputs by name.
        expected: The student's embeddings, float32 ``[N, D]``.
    """

    inputs: Mapping[str, np.ndarray]
    expected: np.ndarray


@torch.no_grad()
def image_probes(student: Student, preprocessing: Preprocessing) -> list[_Probe]:
    """Embed pictures of noise with the student's image tower, in batches of several sizes.

    Args:
        student: The student, which has an image tower.
        preprocessing: The student's preprocessing.

    Raises:
        ExportError: The image tower does not take pictures of the image processor's size.
    """
    generator = np.random.default_rng(0)
    probes = []
    for batch in _BATCHES:
        noise = generator.integers(0, 256, (batch, *preprocessing.size, 3), np.uint8)
        # A picture of low contrast makes wrong normalisation most visible.
        noise[0] //= 8
        values = torch.from_numpy(preprocessing.normalise(noise))
        try:
            embeddings = embed_images(student.model, values)
        except Exception as error:  # A model's code may raise anything.
            height, width = preprocessing.size
            raise ExportError(
                f"preprocessor_config.json: the image tower does not take pictures of {width} x "
                f"{height} pixels ({cause(error)})"
            ) from error
        probes.append(_Probe({IMAGE_INPUT: noise}, embeddings.numpy()))
    return probes


@torch.no_grad()
def text_probes(student: Student) -> list[_Probe]:
    """Embed texts with the student's text tower, from one token to its full context length.

    Args:
        student: The student, which has a text tower.
    """
    assert student.tokenizer is not None
    length = student.context_length
    tokens = [
        tokenize(student.tokenizer, texts, context_length=length, padding=student.padding)
        for texts in ([_TEXTS[0]], _TEXTS)
    ]
    long_ids = tokens[1]["input_ids"]
    # Cut by hand, since a tokenizer adds special tokens to the shortest text.
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
    """Return the largest absolute difference between a graph's embeddings and the student's.

    It is infinite if an embedding is not finite.

    Args:
        path: The graph's file.
        probes: Inputs and expected embeddings.
        output: Name of the graph's output.

    Raises:
        ExportError: The graph cannot be run, or its embeddings have another shape.
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
            f"{path.name}: its embeddings have shape {list(found.shape)}, but the student's have "
            f"{list(probe.expected.shape)}"
        )
    difference = float(np.abs(found.astype(np.float64) - probe.expected).max())
    # Comparisons with NaN are false, so NaN could pass for agreement.
    return difference if np.isfinite(difference) else float("inf")


def check_difference(difference: float, *, file: str, tolerance: float) -> None:
    """Refuse a graph that differs too much from the student.

    Args:
        difference: The largest absolute difference between embeddings.
        file: Name of the graph's file.
        tolerance: The largest difference that passes.

    Raises:
        ExportError: ``difference`` exceeds ``tolerance``.
    """
    if not difference <= tolerance:
        raise ExportError(
            f"{file}: its embeddings differ from the student's by up to {difference:.2g}, but only "
            f"{tolerance:.2g} is allowed; if that is accurate enough, raise export.tolerance"
        )


def check_preprocessing(student: Student, preprocessing: Preprocessing) -> None:
    """Refuse an image processor that the runtime cannot reproduce bit by bit.

    Args:
        student: The student, which has an image processor.
        preprocessing: The runtime's version of the same preprocessing.

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
                f"preprocessor_config.json: the runtime cannot reproduce what {kind} does to a "
                f"picture of {width} x {height} pixels; a bundle can only resize, crop and "
                "normalise"
            )


def check_tokenizer(student: Student, part: TextPart, path: Path) -> None:
    """Refuse a tokenizer that the runtime cannot reproduce.

    Args:
        student: The student, which has a tokenizer.
        part: The text tower's entry in the manifest.
        path: The bundle's tokenizer file.

    Raises:
        ExportError: Token ids or masks differ.
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
                f"{path.name}: {kind} and this file give different tokens for "
                f"{texts[0][:40]!r}; a bundle needs a tokenizer that pads and cuts on the right, "
                "and that tokenizer.json describes completely"
            )
