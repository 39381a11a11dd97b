"""From texts to what a text tower reads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers

from .errors import BundleError
from .manifest import TextPart


class Tokenizer:
    """The tokenizer of a bundle, cutting and padding as its manifest says.

    Args:
        path: The ``tokenizer.json``.
        part: What the manifest says about texts.

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
        except Exception as error:  # tokenizers raises nothing more specific.
            reason = " ".join(str(error).split())
            raise BundleError(
                f"{path}: the bundle's tokenizer is damaged ({reason}); export the student again"
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(part.context_length)
        self._part = part

    def __call__(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Give ``input_ids`` and ``attention_mask``, both int64 ``[N, L]``.

        Texts are cut at the context length, then padded on the right to the longest of them or
        to the context length.
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
