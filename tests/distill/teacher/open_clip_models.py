"""Small models of open_clip, as the folders that open_clip itself loads from."""

import json
from pathlib import Path
from typing import Any

from tests.lazy import lazy_imports

with lazy_imports():
    import open_clip
    import torch
    from transformers import BertConfig, BertTokenizer

    from distill.teacher._open_clip_towers import silent

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
CLIP = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
# 5 special tokens, and each letter at the start of a word and within it.
HF_TEXT = {"context_length": 12, "vocab_size": 57, "hf_tokenizer_name": "some/tokenizer"}
MODELS: dict[str, dict[str, Any]] = {
    "clip": CLIP,
    "quick": {**CLIP, "quick_gelu": True},
    "custom": {**CLIP, "custom_text": True},
    "tokens": {
        **CLIP,
        "custom_text": True,
        "vision_cfg": {**VISION, "output_tokens": True},
        "text_cfg": {**TEXT, "output_tokens": True},
    },
    "siglip": {
        "embed_dim": 24,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "timm_model_name": "test_vit", "timm_proj": "linear"},
        "text_cfg": {
            **TEXT,
            **HF_TEXT,
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "pool_type": "last",
            "proj_bias": True,
        },
    },
    "hf_text": {
        "embed_dim": 24,
        "vision_cfg": VISION,
        "text_cfg": {**HF_TEXT, "hf_model_name": "some/bert", "hf_pooler_type": "mean_pooler"},
    },
    "coca": {
        **CLIP,
        "custom_text": True,
        "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 2}
        | {"output_tokens": True},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2}
        | {"layers": 1, "attn_pooler_heads": 2},
    },
}
LOOKS: dict[str, dict[str, Any]] = {
    "siglip": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"},
    "custom": {"interpolation": "bilinear", "mean": [0.0] * 3, "std": [1.0] * 3},
}


def save_open_clip(folder: Path, name: str) -> Path:
    """Write one of ``MODELS`` with random weights into a new folder."""
    folder.mkdir()
    config = json.loads(json.dumps(MODELS[name]))
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text:
        save_words(folder)
    if "hf_model_name" in text:
        text["hf_model_name"] = str(save_bert(folder / "bert"))
    values = {"model_cfg": config, "preprocess_cfg": LOOKS.get(name, {})}
    (folder / "open_clip_config.json").write_text(json.dumps(values))
    torch.save(random_weights(f"local-dir:{folder}"), folder / "open_clip_pytorch_model.bin")
    return folder


def random_weights(identifier: str) -> dict[str, torch.Tensor]:
    """Draw weights large enough for every part of a model to matter."""
    with silent():
        model = open_clip.create_model(identifier, load_weights=False, pretrained_text=False)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "logit" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    state: dict[str, torch.Tensor] = model.state_dict()
    return state


def save_words(folder: Path) -> Path:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
    pieces += [f"##{letter}" for letter in LETTERS]
    BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}).save_pretrained(folder)
    return folder


def save_bert(folder: Path) -> Path:
    BertConfig(
        vocab_size=57,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=12,
    ).save_pretrained(folder)
    return folder
