"""What `clip-distill embed` makes: embeddings, and the file or text that each row stands for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distill.basis.files import whole_file, write_whole
from export.runtime.errors import DataError

BATCH = 32


@dataclass(frozen=True)
class Embedded:
    """Embeddings, float32 ``[N, D]``, the file or text of each row, and what cannot be read."""

    features: NDArray[np.float32]
    rows: Sequence[Path | str]
    unreadable: Sequence[str] = ()
    kind: Literal["files", "texts"] = "files"


def check_place(out: Path) -> None:
    """Check that embeddings can be written to ``out``.

    Raises:
        DataError: ``out`` does not end in ``.npy``, or its folder does not exist.
    """
    if out.suffix != ".npy":
        raise DataError(f"--out {out}: found the ending {out.suffix!r}, must be .npy")
    if not out.parent.is_dir():
        raise DataError(f"--out {out}: there is no folder {out.parent}; create it first")


def write_embedded(embedded: Embedded, out: Path) -> Path:
    """Write the embeddings to ``out`` and the rows' files or texts to a second file next to it.

    Each file is written whole or not at all, the embeddings last.

    Returns:
        The path of the second file, one row per line.
    """
    names = out.with_suffix(f".{embedded.kind}.txt")
    lines = "".join(f"{row}\n" for row in embedded.rows)
    with whole_file(out) as temporary:
        with temporary.open("wb") as file:
            np.save(file, embedded.features)
        write_whole(names, lines.encode("utf-8", "surrogateescape"))
    return names
