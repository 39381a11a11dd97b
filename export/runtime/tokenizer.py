"""Turn texts into the inputs of a text graph."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers

from .errors import BundleError, reason_of
from .manifest import TextPart


class Tokenizer:
    """The tokenizer of a bundle. It cuts and pads as the manifest says.

    Args:
        path: The ``tokenizer.json``.
        part: The text tower's entry in the manifest.

    Raises:
        BundleError: The file is missing or damaged.
    """

    def __init__(self, path: Path, part: TextPart) -> None:
        if not path.is_file():
            raise BundleError(
                f"{path}: the bundle's tokenizer is missing; export the student again"
            )
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # The tokenizers library raises nothing more specific.
            raise BundleError(
                f"{path}: the bundle's tokenizer is damaged ({reason_of(error)}); export the "
                "student again"
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(part.context_length)
        self._part = part

    def __call__(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Turn texts into tokens.

        Texts are cut to the context length, then padded on the right to the longest of them or
        to the context length.

        Args:
            texts: ``N`` texts.

        Returns:
            ``input_ids`` and ``attention_mask``, both int64 ``[N, L]``.
        """
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        part = self._part
        longest = max((len(row) for row in rows), default=0)
        length = part.context_length if part.padding == "full" else max(longest, 1)
        ids = np.full((len(rows), length), part.pad_token_id, np.int64)
        mask = np.full((len(rows), length), 0 if part.mask_padding else 1, np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return {"input_ids": ids, "attention_mask": mask}
