"""ONNX graphs in onnxruntime, with errors that name the file."""

from pathlib import Path

import numpy as np
import onnxruntime

from . import manifest
from .errors import BundleError, RecipeError

# onnxruntime reports on the terminal what it raises as well; from this level on it keeps quiet.
_SILENT = 4


def open_session(path: Path, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Load a graph.

    Args:
        path: The ONNX file.
        threads: How many threads it may use; ``None`` leaves it to onnxruntime.

    Raises:
        BundleError: The file is missing or damaged.
        RecipeError: ``threads`` is less than 1.
    """
    if not path.is_file():
        raise BundleError(f"{path}: this part of the bundle is missing; export the student again")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    if threads is not None:
        if threads < 1:
            raise RecipeError(f"threads: found {threads}, expected at least 1")
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # Its exceptions have no common base of their own.
        raise BundleError(
            f"{path}: onnxruntime cannot load it, it is damaged or too new ({_line(error)}); "
            "export the student again"
        ) from error


def check_graph(
    session: onnxruntime.InferenceSession,
    path: Path,
    inputs: dict[str, tuple[str, list[int]]],
    output: tuple[str, int],
) -> None:
    """Refuse a graph that is another than the manifest describes.

    Args:
        session: The graph.
        path: Its file.
        inputs: Names of the inputs, with their type and their sizes after the batch, if fixed.
        output: Name of the output, and the width of the embeddings.

    Raises:
        BundleError: It is another.
    """
    found = {node.name: (node.type, node.shape) for node in session.get_inputs()}
    fits = found.keys() == inputs.keys() and all(
        found[name][0] == kind and (not fixed or list(found[name][1][1:]) == fixed)
        for name, (kind, fixed) in inputs.items()
    )
    outputs = {node.name: (node.type, node.shape) for node in session.get_outputs()}
    name, width = output
    kind, shape = outputs.get(name, ("", []))
    if not fits or kind != "tensor(float)" or len(shape) != 2 or shape[1] != width:
        raise BundleError(
            f"{path}: the graph is another than {manifest.FILE} describes, with inputs "
            f"{found} and outputs {outputs}; export the student again"
        )


def run_graph(
    session: onnxruntime.InferenceSession, path: Path, output: str, inputs: dict[str, np.ndarray]
) -> np.ndarray:
    """Run a graph that was loaded from ``path``; its output as float32.

    Raises:
        BundleError: The graph fails on these inputs.
    """
    try:
        (embeddings,) = session.run([output], inputs)
    except Exception as error:  # Its exceptions have no common base of their own.
        raise BundleError(f"{path}: the graph failed ({_line(error)})") from error
    return np.asarray(embeddings, np.float32)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."
