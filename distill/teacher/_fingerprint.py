"""Fingerprints of a model's folder or of its tensors, and the files of its weights."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from students.hub import VOCABULARY_FILES

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SETTINGS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers reads a model's weights from, shards in order."""
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / shard for shard in sorted(set(shards))]
    return []


def fingerprint(folder: Path, *, dtype: str) -> str:
    """Return a digest of a model's weights, configuration, tokenizer, preprocessing and dtype.

    The digest depends on the contents of these files, but not on where the folder is. Files that
    loading ignores, such as a README, do not change it.
    """
    first, *others = VOCABULARY_FILES
    tokenizer = [first] if (folder / first).is_file() else others
    settings = [folder / name for name in (*_SETTINGS, *tokenizer)]
    digest = hashlib.sha256(dtype.encode())
    for file in (*weight_files(folder), *settings):
        if file.is_file():
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(f"\n{file.name} {content}".encode())
    return digest.hexdigest()


def tensor_fingerprint(tensors: Mapping[str, Tensor], settings: Mapping[str, object]) -> str:
    """Return a digest of a model's tensors and settings that does not depend on their files.

    Args:
        tensors: The weights and buffers by name, on any device.
        settings: Everything else that the embeddings depend on, as values that JSON can hold.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
