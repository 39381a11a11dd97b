"""What a model's folder or its tensors are known by, and how large its weights are."""

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
    """The files that transformers reads a model's weights from, shards in their order."""
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / shard for shard in sorted(set(shards))]
    return []


def fingerprint(folder: Path, *, dtype: str) -> str:
    """Digest of a model's weights, configuration, tokenizer and preprocessing, and of its dtype.

    It depends on the files' contents and not on where they lie, and on no file that loading
    passes over, such as a README.
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
    """Digest of a model's tensors by name and of its settings, whatever file they came from.

    Args:
        tensors: The weights and buffers, on any device.
        settings: What else the embeddings depend on; values that JSON can hold.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
