"""Teachers from OpenAI's CLIP checkpoints, built by open_clip_torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip import SimpleTokenizer, get_pretrained_cfg, get_pretrained_url
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import (
    build_model_from_openai_state_dict,
    convert_weights_to_lp,
    get_cast_dtype,
    set_model_preprocess_cfg,
)
from torch import Tensor

from distill.basis.progress import make_console
from distill.teacher._open_clip_hub import fetch_weights
from distill.teacher._open_clip_towers import (
    PRECISIONS,
    OpenClipTeacher,
    OpenClipTokenizer,
    silent,
)
from distill.teacher._weights import read_weights, reading
from distill.teacher.openai_names import OPENAI_MODELS
from distill.teacher.protocol import Teacher
from export.runtime.errors import TeacherError

# Numbers that describe the model; all other entries are weights.
_NUMBERS = ("input_resolution", "context_length", "vocab_size")
# A constant that TorchScript stores with the weights of a scripted model.
_MASK = "attn_mask"
_TEXT = ("text_projection", "positional_embedding", "token_embedding.weight", "ln_final.weight")
_IMAGE = ("visual.proj", "visual.attnpool.positional_embedding")
# The width of an attention head in both towers.
_HEAD = 64


def load_openai_teacher(model: str, *, device: str = "cpu", dtype: str = "float32") -> Teacher:
    """Load one of OpenAI's CLIP models by its name or from a file.

    Args:
        model: ``ViT-L/14`` or another of ``OPENAI_MODELS``, or a file: the TorchScript archive
            that OpenAI distributes, or a state dict or safetensors file with the same names.
        device: The device that it runs on.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``; stored weights are converted.

    Raises:
        TeacherError: The file is unavailable, damaged, of another format, or asks to run code;
            one line.
    """
    file = Path(model).expanduser()
    if file.is_file():
        name = file.stem
    elif model in OPENAI_MODELS:
        name, file = model, _find(model)
    else:
        raise TeacherError(
            f"teacher.model: found {model!r}, must be one of OpenAI's files or one of "
            f"{', '.join(OPENAI_MODELS)}"
        )
    state = read_weights(file)
    _check_format(state, file)
    if not any(number in state for number in _NUMBERS):
        make_console().print(
            f"teacher: {file} does not say which activation it was trained with; QuickGELU is "
            "assumed, as in OpenAI's models; for an open_clip model without it, set kind: "
            "open_clip and quick_gelu: false"
        )
    with reading(file), silent():
        towers = _build(state, dtype=dtype).to(device)
        tokenizer = OpenClipTokenizer(SimpleTokenizer(context_length=towers.context_length))
    # Everything else that the embeddings depend on follows from the shapes of the weights.
    config = {"openai": True, "quick_gelu": True}
    try:
        return OpenClipTeacher(
            towers, tokenizer, name=name, weights=file, config=config, dtype=dtype
        )
    except ValueError as error:
        raise TeacherError(f"teacher.model: {error}") from error


def _find(model: str) -> Path:
    """Return the file of a model, from the cache of OpenAI's package or else from the hub."""
    architecture = model.replace("/", "-").replace("@", "-").removesuffix("px")
    address: str = get_pretrained_url(architecture, "openai")
    downloaded = Path("~/.cache/clip").expanduser() / address.rpartition("/")[2]
    if downloaded.is_file():
        return downloaded
    try:
        return fetch_weights(get_pretrained_cfg(architecture, "openai"))
    except OSError as error:
        raise TeacherError(
            f"teacher.model: {model} cannot be loaded from the hub; download {address} on a "
            "machine that reaches it, and set teacher.model to the path of the file"
        ) from error


def _check_format(state: Mapping[str, Tensor], file: Path) -> None:
    lacking = [name for name in _TEXT if name not in state]
    if not any(name in state for name in _IMAGE):
        lacking.append(_IMAGE[0])
    if lacking:
        raise TeacherError(
            f"teacher.model: {file} is not a checkpoint of OpenAI's CLIP, since it lacks "
            f"{', '.join(lacking)}; use kind: hf for a model of transformers and kind: open_clip "
            "for other models of open_clip"
        )
    if state["ln_final.weight"].shape[0] < _HEAD:
        raise TeacherError(
            f"teacher.model: {file}: its text tower is {state['ln_final.weight'].shape[0]} wide, "
            f"but one attention head of OpenAI's models takes {_HEAD}"
        )


def _build(state: Mapping[str, Tensor], *, dtype: str) -> Any:
    precision = PRECISIONS[dtype]
    mask = {name for name in state if name.rpartition(".")[2] == _MASK}
    weights = {name: value for name, value in state.items() if name not in {*_NUMBERS, *mask}}
    towers = build_model_from_openai_state_dict(
        dict(weights), quick_gelu=True, cast_dtype=get_cast_dtype(precision)
    )
    # open_clip has rounded the weights to float16; those of a fine-tuned model are finer.
    towers.float().load_state_dict(weights)
    if precision != "fp32":
        convert_weights_to_lp(towers, dtype=getattr(torch, dtype))
    set_model_preprocess_cfg(
        towers,
        {
            "size": towers.visual.image_size,
            "mean": OPENAI_DATASET_MEAN,
            "std": OPENAI_DATASET_STD,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    )
    return towers
