"""Students of every kind that can be exported, each small enough for tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from transformers import (
        BertConfig,
        BertModel,
        BertTokenizer,
        CLIPConfig,
        CLIPImageProcessorPil,
        CLIPModel,
        CLIPTokenizer,
        PreTrainedModel,
        SiglipConfig,
        SiglipImageProcessorPil,
        SiglipModel,
        VisionTextDualEncoderModel,
        ViTConfig,
        ViTImageProcessorPil,
        ViTModel,
    )

    from export.bundle import ExportReport, export_student
    from students.config import StudentConfig
    from students.encoder import Student
    from students.model import StudentModel

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}


def word_tokenizer() -> BertTokenizer:
    words = ["a", "photo", "of", "cat", "dog", "red", "green", ".", ","]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *LETTERS[1:]]
    pieces += [f"##{letter}" for letter in LETTERS]
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)})


def clip_tokenizer(**options: Any) -> CLIPTokenizer:
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={p: n for n, p in enumerate(pieces)}, merges=[], **options)


def with_visible_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Draw large weights, so different inputs give clearly different embeddings."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def towers(*, image: bool = True, text: bool = True, pool: str = "mean") -> Student:
    tokenizer = word_tokenizer() if text else None
    bert = {**SMALL, "vocab_size": 80, "max_position_embeddings": 40}
    config = StudentConfig(
        image={"backbone": "test_efficientnet", "projection": "linear"} if image else None,
        text={"config": bert, "pooling": pool, "context_length": 24} if text else None,
        projection_dim=16,
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size=32) if image else None
    model = StudentModel(config).eval()
    return Student(model, tokenizer, processor, 24 if text else 0, "longest")


def clip() -> Student:
    tokenizer = clip_tokenizer(model_max_length=20)
    text = {**SMALL, "vocab_size": 54, "max_position_embeddings": 20}
    ids = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": tokenizer.pad_token_id}
    config = CLIPConfig(text_config={**text, **ids}, vision_config=VISION, projection_dim=16)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    return Student(with_visible_weights(CLIPModel(config)), tokenizer, processor, 20, "longest")


def siglip() -> Student:
    # SigLIP's own tokenizer declares no attention mask, so the model attends to padding.
    tokenizer = clip_tokenizer(model_max_length=16, model_input_names=["input_ids"])
    ids = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": tokenizer.pad_token_id}
    text = {**SMALL, **ids, "vocab_size": 54, "max_position_embeddings": 16}
    config = SiglipConfig(text_config=text, vision_config=VISION)
    model = with_visible_weights(SiglipModel(config))
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return Student(model, tokenizer, processor, 16, "full")


def dual_encoder() -> Student:
    tokenizer = word_tokenizer()
    tokenizer.model_max_length = 40
    model = VisionTextDualEncoderModel(
        vision_model=ViTModel(ViTConfig(**VISION)),
        text_model=BertModel(BertConfig(**SMALL, vocab_size=80, max_position_embeddings=40)),
    )
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    return Student(with_visible_weights(model), tokenizer, processor, 40, "longest")


STUDENTS: dict[str, Callable[[], Student]] = {
    "towers": towers,
    "image only": lambda: towers(text=False),
    "text only": lambda: towers(image=False, pool="cls"),
    "clip": clip,
    "siglip": siglip,
    "dual encoder": dual_encoder,
}


@pytest.fixture(scope="session")
def student_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that saves one of ``STUDENTS`` once and returns its folder."""
    saved: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in saved:
            saved[name] = tmp_path_factory.mktemp("student") / name.replace(" ", "_")
            torch.manual_seed(11)
            STUDENTS[name]().save(saved[name])
        return saved[name]

    return folder


@pytest.fixture(scope="session")
def exported(
    student_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ExportReport]:
    """Return a function that exports one of ``STUDENTS`` once; do not change its bundle."""
    reports: dict[str, ExportReport] = {}

    def report(name: str) -> ExportReport:
        if name not in reports:
            out = tmp_path_factory.mktemp("exported") / "bundle"
            reports[name] = export_student(student_folder(name), out)
        return reports[name]

    return report
