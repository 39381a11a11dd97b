"""Load and run ONNX graphs in onnxruntime, with errors that name the file."""

from pathlib import Path

import numpy as np
import onnxruntime

from . import manifest
from .errors import BundleError, RecipeError, reason_of

# onnxruntime also prints the errors that it raises, unless the log level is this high.
_SILENT = 4


def open_session(path: Path, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Load a graph to run on the CPU.

    Args:
        path: The ONNX file.
        threads: Number of threads that it may use; ``None`` leaves it to onnxruntime.

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
    except Exception as error:  # Its exceptions share no base class.
        raise BundleError(
            f"{path}: onnxruntime cannot load it; it is damaged, or too new for this onnxruntime "
            f"({reason_of(error)}); export the student again"
        ) from error


def check_graph(
    session: onnxruntime.InferenceSession,
    path: Path,
    inputs: dict[str, tuple[str, list[int]]],
    output: tuple[str, int],
) -> None:
    """Refuse a graph that does not match the manifest.

    Args:
        session: The loaded graph.
        path: The graph's file.
        inputs: Type and shape of each input by name. The shape leaves out the batch; an empty
            shape is not checked.
        output: Name of the output, and width of the embeddings.

    Raises:
        BundleError: The graph has other inputs or outputs.
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
            f"{path}: the graph does not match {manifest.FILE}; it has inputs {found} and outputs "
            f"{outputs}; export the student again"
        )


def run_graph(
    session: onnxruntime.InferenceSession, path: Path, output: str, inputs: dict[str, np.ndarray]
) -> np.ndarray:
    """Run a graph.

    Args:
        session: The loaded graph.
        path: The graph's file, for messages.
        output: Name of the output.
        inputs: The inputs by name.

    Returns:
        The output, float32 ``[N, D]``.

    Raises:
        BundleError: The graph fails on these inputs.
    """
    try:
        (embeddings,) = session.run([output], inputs)
    except Exception as error:  # Its exceptions share no base class.
        raise BundleError(f"{path}: the graph failed ({reason_of(error)})") from error
    return np.asarray(embeddings, np.float32)
