"""Turn the towers of a student into ONNX graphs: pixels or tokens in, embeddings out."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from export.runtime.errors import ExportError, reason_of
from export.runtime.preprocess import Preprocessing
from students.encoder import embed_images, embed_texts

IMAGE_INPUT = "pixels"
IMAGE_OUTPUT = "image_embeds"
TEXT_INPUTS = ("input_ids", "attention_mask")
TEXT_OUTPUT = "text_embeds"

_DYNAMIC = torch.export.Dim.DYNAMIC


class _ImageGraph(nn.Module):
    """Embed uint8 pixels ``[N, H, W, 3]``; the graph scales and normalises them.

    Args:
        model: The student's model.
        preprocessing: Its ``rescale``, ``mean`` and ``std`` become part of the graph.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, model: PreTrainedModel, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
        for name, values in (("factor", preprocessing.rescale / std), ("offset", mean / std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return L2-normalised embeddings, float32 ``[N, D]``."""
        channels_first = pixels.permute(0, 3, 1, 2).to(torch.float32)
        return embed_images(self.model, channels_first * self.factor - self.offset)


class _TextGraph(nn.Module):
    """Embed token ids and mask, both int64 ``[N, L]``.

    Args:
        model: The student's model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return L2-normalised embeddings, float32 ``[N, D]``."""
        tokens = {"input_ids": input_ids, "attention_mask": attention_mask}
        return embed_texts(self.model, tokens)


def export_image(
    model: PreTrainedModel, preprocessing: Preprocessing, *, opset: int
) -> onnx.ModelProto:
    """Turn the image tower into a graph with a dynamic batch size.

    Args:
        model: The student's model.
        preprocessing: Fixes the size of the pictures, and how the graph normalises them.
        opset: ONNX operator set of the graph.

    Raises:
        ExportError: torch cannot export the tower to ONNX in this opset.
    """
    pixels = torch.zeros(2, *preprocessing.size, 3, dtype=torch.uint8)
    return _export(
        _ImageGraph(model, preprocessing).eval(),
        {IMAGE_INPUT: pixels},
        output=IMAGE_OUTPUT,
        axes=("batch",),
        opset=opset,
    )


def export_text(model: PreTrainedModel, *, context_length: int, opset: int) -> onnx.ModelProto:
    """Turn the text tower into a graph with dynamic batch size and text length.

    Args:
        model: The student's model.
        context_length: The largest number of tokens in a text.
        opset: ONNX operator set of the graph.

    Raises:
        ExportError: torch cannot export the tower to ONNX in this opset.
    """
    tokens = torch.ones(2, min(context_length, 7), dtype=torch.int64)
    return _export(
        _TextGraph(model).eval(),
        {name: tokens.clone() for name in TEXT_INPUTS},
        output=TEXT_OUTPUT,
        axes=("batch", "sequence"),
        opset=opset,
    )


def _export(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    output: str,
    axes: tuple[str, ...],
    opset: int,
) -> onnx.ModelProto:
    """Export a module. The first axes of its inputs are dynamic and get the names ``axes``."""
    shapes = {name: dict.fromkeys(range(len(axes)), _DYNAMIC) for name in inputs}
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                kwargs=dict(inputs),
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=shapes,
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            graph = program.model_proto
    except Exception as error:  # The exporter wraps whatever a model's code raises.
        raise ExportError(
            f"{output}: torch cannot export this tower to ONNX ({cause(error)})"
        ) from error
    found = {entry.domain: entry.version for entry in graph.opset_import}
    if found.get("") != opset:
        raise ExportError(
            f"{output}: torch exported opset {found.get('')} instead of {opset}; set "
            f"export.opset: {found.get('')}"
        )
    _tidy(graph, axes)
    return graph


def _tidy(graph: onnx.ModelProto, axes: tuple[str, ...]) -> None:
    """Name the dynamic axes, and drop what only helps to debug the exporter.

    In a small graph, the debugging data is most of the file, and it contains paths on this machine.
    """
    main = graph.graph
    for value in (*main.input, *main.output):
        dims = value.type.tensor_type.shape.dim
        for dim, name in zip(dims, axes, strict=False):
            if dim.WhichOneof("value") == "dim_param":
                dim.dim_param = name
    del main.value_info[:]
    parts: list[Any] = [graph, main, *main.input, *main.output, *main.node, *main.initializer]
    for function in graph.functions:
        parts += [function, *function.node]
        del function.value_info[:]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's logs and warnings; errors are still raised."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def cause(error: BaseException) -> str:
    """Return the text of the first exception in a chain of causes, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason_of(error)
