"""A tokenizer and towers small enough for tests, and a hub that cannot be reached."""

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer, CLIPTokenizer

COLOURS = ["red", "green", "blue"]
SHAPES = ["circle", "square", "star", "cat", "dog"]
WORDS = ["a", "photo", "of", "the", "small", "large", "on", "dark", *COLOURS, *SHAPES]
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}


def word_tokenizer() -> BertTokenizer:
    """Return a BERT tokenizer that knows ``WORDS`` and single letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters[1:]]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizer(vocab=vocab)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small BERT as models are published: with a head that a text tower does not need."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **BERT)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip_tokenizer")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    return folder


@pytest.fixture
def text(tokenizer_folder: Path) -> dict[str, Any]:
    """A recipe's ``student.text`` for a small tower with new weights."""
    return {
        "model": None,
        "config": dict(BERT),
        "tokenizer": str(tokenizer_folder),
        "pretrained": False,
        "pooling": "mean",
        "projection": "linear",
        "context_length": 16,
    }


@pytest.fixture
def image() -> dict[str, Any]:
    """A recipe's ``student.image`` for a small tower with new weights."""
    return {
        "backbone": "test_efficientnet",
        "pretrained": False,
        "weights": None,
        "image_size": 64,
        "projection": "linear",
        "arguments": {},
    }


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Empty the hub's cache, and let the hub refuse connections."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
