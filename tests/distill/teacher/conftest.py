"""Small dual encoders of transformers for tests, saved as folders."""

from pathlib import Path
from typing import Any

import pytest

from tests.lazy import lazy_imports

with lazy_imports():
    import torch
    from transformers import (
        AltCLIPConfig,
        AltCLIPModel,
        BertConfig,
        BertModel,
        BertTokenizer,
        ChineseCLIPConfig,
        ChineseCLIPImageProcessorPil,
        ChineseCLIPModel,
        CLIPConfig,
        CLIPImageProcessorPil,
        CLIPModel,
        CLIPTokenizer,
        SiglipConfig,
        SiglipImageProcessorPil,
        SiglipModel,
        VisionTextDualEncoderConfig,
        VisionTextDualEncoderModel,
        ViTConfig,
        ViTImageProcessorPil,
        ViTModel,
    )

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 20,
}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


def save_clip(folder: Path, *, dtype: str = "float32") -> Path:
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    ids = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id}
    ids |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = CLIPConfig(text_config={**TEXT, **ids}, vision_config=VISION, projection_dim=24)
    torch.manual_seed(1)
    CLIPModel(config).to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def bert_tokenizer(**options: Any) -> BertTokenizer:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
    pieces += [f"##{letter}" for letter in LETTERS]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, **options)


def save_chinese_clip(folder: Path) -> Path:
    tokenizer = bert_tokenizer(model_max_length=52)
    tokenizer.save_pretrained(folder)
    ChineseCLIPImageProcessorPil(
        size={"height": 32, "width": 32}, do_center_crop=False
    ).save_pretrained(folder)
    text = {**TEXT, "vocab_size": len(tokenizer), "pad_token_id": 0}
    config = ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    torch.manual_seed(4)
    ChineseCLIPModel(config).save_pretrained(folder)
    return folder


def save_alt_clip(folder: Path) -> Path:
    # As in XLM-R, start and end tokens enclose the text, and padding has the id 1.
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS]
    tokenizer = BertTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)},
        cls_token="<s>",
        pad_token="<pad>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<unk>",
    )
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    text = {**TEXT, "vocab_size": len(tokenizer), "pad_token_id": 1, "project_dim": 16}
    text |= {"type_vocab_size": 1}
    config = AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    torch.manual_seed(5)
    AltCLIPModel(config).save_pretrained(folder)
    return folder


def save_siglip(folder: Path) -> Path:
    # Like SigLIP's, this tokenizer has no attention mask.
    tokenizer = bert_tokenizer(model_input_names=["input_ids"])
    tokenizer.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    text = {**TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    torch.manual_seed(2)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
    with torch.no_grad():
        # As in published models, the scale is greater than a student may learn.
        model.logit_scale.fill_(4.75)
        model.logit_bias.fill_(-12.5)
    model.save_pretrained(folder)
    return folder


def save_pair(folder: Path) -> Path:
    tokenizer = bert_tokenizer(model_max_length=12)
    tokenizer.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    torch.manual_seed(3)
    vision, text = ViTModel(ViTConfig(**VISION)), BertModel(BertConfig(vocab_size=57, **TEXT))
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision.config, text.config, projection_dim=24
    )
    VisionTextDualEncoderModel(config, vision, text).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def half_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("half"), dtype="float16")


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="session")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def chinese_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chinese_clip(tmp_path_factory.mktemp("chinese"))


@pytest.fixture(scope="session")
def alt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_alt_clip(tmp_path_factory.mktemp("alt"))
