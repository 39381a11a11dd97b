"""Checkpoints in the format of OpenAI's CLIP, and the same weights as a ``CLIPModel``."""

import gzip
import warnings
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import default_bpe
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

WIDTH, EMBEDDING, LAYERS, PATCH, IMAGE, CONTEXT, WORDS = 64, 32, 2, 8, 32, 77, 49408
NUMBERS = {"input_resolution": IMAGE, "context_length": CONTEXT, "vocab_size": WORDS}
# The names of a layer's weights at OpenAI and in transformers.
IN_A_LAYER = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
OUTSIDE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}


def random_state(*, dtype: torch.dtype = torch.float32, numbers: bool = True) -> dict[str, Tensor]:
    """Draw the weights of a small ViT CLIP, under the names that OpenAI uses."""
    generator = torch.Generator().manual_seed(5)

    def draw(*size: int, scale: float = 0.3) -> Tensor:
        return (torch.randn(*size, generator=generator) * scale).to(dtype)

    state = {
        "visual.class_embedding": draw(WIDTH),
        "visual.conv1.weight": draw(WIDTH, 3, PATCH, PATCH, scale=0.1),
        "visual.positional_embedding": draw((IMAGE // PATCH) ** 2 + 1, WIDTH),
        "visual.proj": draw(WIDTH, EMBEDDING),
        "token_embedding.weight": draw(WORDS, WIDTH),
        "positional_embedding": draw(CONTEXT, WIDTH),
        "text_projection": draw(WIDTH, EMBEDDING),
        "logit_scale": torch.tensor(4.6052, dtype=dtype),
    }
    for name in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        state |= {f"{name}.weight": 1 + draw(WIDTH), f"{name}.bias": draw(WIDTH)}
    for tower in ("visual.transformer", "transformer"):
        for layer in range(LAYERS):
            block = f"{tower}.resblocks.{layer}"
            state |= {
                f"{block}.attn.in_proj_weight": draw(3 * WIDTH, WIDTH),
                f"{block}.attn.in_proj_bias": draw(3 * WIDTH),
                f"{block}.attn.out_proj.weight": draw(WIDTH, WIDTH),
                f"{block}.attn.out_proj.bias": draw(WIDTH),
                f"{block}.mlp.c_fc.weight": draw(4 * WIDTH, WIDTH),
                f"{block}.mlp.c_fc.bias": draw(4 * WIDTH),
                f"{block}.mlp.c_proj.weight": draw(WIDTH, 4 * WIDTH),
                f"{block}.mlp.c_proj.bias": draw(WIDTH),
            }
            for name in ("ln_1", "ln_2"):
                state |= {f"{block}.{name}.weight": 1 + draw(WIDTH)}
                state |= {f"{block}.{name}.bias": draw(WIDTH)}
    return {**state, **{key: torch.tensor(value) for key, value in NUMBERS.items() if numbers}}


class Tree(nn.Module):
    """Has parameters and buffers under dotted names, and a forward that uses none of them."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        below: dict[str, dict[str, Tensor]] = {}
        for name, value in state.items():
            first, _, rest = name.partition(".")
            if rest:
                below.setdefault(first, {})[rest] = value
            elif value.is_floating_point():
                self.register_parameter(first, nn.Parameter(value, requires_grad=False))
            else:
                self.register_buffer(first, value)
        for first, inner in below.items():
            self.add_module(first, Tree(inner))

    def forward(self, image: Tensor) -> Tensor:
        return image


def save_torchscript(module: nn.Module, file: Path) -> Path:
    with warnings.catch_warnings():
        # Writing such archives is deprecated, but reading existing ones is needed.
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(file)
    return file


def save_openai(folder: Path, form: str, *, state: dict[str, Tensor] | None = None) -> Path:
    """Write a checkpoint as a ``torchscript`` archive or a plain ``state_dict``."""
    state = random_state() if state is None else state
    file = folder / f"{form}.pt"
    if form == "torchscript":
        return save_torchscript(Tree(state), file)
    torch.save(state, file)
    return file


def save_as_clip_model(folder: Path, state: dict[str, Tensor], **text: Any) -> Path:
    """Write the same weights as a ``CLIPModel``, with OpenAI's vocabulary for transformers."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
    sizes |= {"num_attention_heads": WIDTH // 64, "hidden_act": "quick_gelu"}
    words = {"vocab_size": WORDS, "bos_token_id": WORDS - 2, "eos_token_id": WORDS - 1}
    config = CLIPConfig(
        text_config={**sizes, **words, "max_position_embeddings": CONTEXT, **text},
        vision_config={**sizes, "image_size": IMAGE, "patch_size": PATCH},
        projection_dim=EMBEDDING,
    )
    model = CLIPModel(config)
    model.load_state_dict(_renamed(state))
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE}
    ).save_pretrained(folder)
    return folder


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {new: state[old].float() for old, new in OUTSIDE.items()}
    renamed["visual_projection.weight"] = state["visual.proj"].float().T
    renamed["text_projection.weight"] = state["text_projection"].float().T
    for old, new in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
        for layer in range(LAYERS):
            block, target = f"{old}.resblocks.{layer}", f"{new}.encoder.layers.{layer}"
            for kind in ("weight", "bias"):
                for theirs, ours in IN_A_LAYER.items():
                    renamed[f"{target}.{ours}.{kind}"] = state[f"{block}.{theirs}.{kind}"].float()
                whole = state[f"{block}.attn.in_proj_{kind}"].float()
                for name, part in zip("qkv", whole.chunk(3), strict=True):
                    renamed[f"{target}.self_attn.{name}_proj.{kind}"] = part
    return renamed


def _tokenizer() -> CLIPTokenizer:
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    # The bytes in the order of OpenAI's table: printable ones first.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [*map(chr, printable), *(chr(256 + number) for number in range(len(others)))]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)
