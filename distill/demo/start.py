"""The start of the demo's teacher: a small ``CLIPModel`` that learns shapes in minutes.

From a random start, a tiny ViT learns colours in a minute but needs hours for shapes. This model
starts with sine-cosine positions and with a patch embedding made of the whitened principal
components of the pictures' patches. It is still a plain ``CLIPModel``, so any recipe with
``student.kind: hf`` can train it further through ``student.start``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
)

from distill.basis.files import whole_folder
from distill.data.sample import Source, open_image
from distill.data.tables.table import open_table
from export.runtime.errors import DataError

_IMAGE_SIZE = 48
_PATCH_SIZE = 8
WIDTH = 128
_CONTEXT_LENGTH = 32
_VOCABULARY = 512  # at most: 256 bytes, two marks, and as many merges as the captions give
_PICTURES_FOR_COMPONENTS = 2000

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
_BOS_ID, _EOS_ID = 0, 1  # not 2, because transformers would then pool another token


def prepare_start(folder: Path, *, table: Path, seed: int) -> Path:
    """Build the teacher's start from a table of captioned pictures and return its folder.

    The folder holds a ``CLIPModel`` with its tokenizer and image processor. It appears whole or
    not at all, and an existing one is left as it is.

    Raises:
        DataError: The table or its pictures cannot be read, or the table has no captions.
    """
    if (folder / "config.json").is_file():
        return folder
    source = open_table(table)
    captions = [caption for index in range(len(source)) for caption in source[index].captions]
    if not captions:
        raise DataError(f"{table}: it has no captions, and the tokenizer is trained on them")
    pictures = _sample_pictures(source)
    mean, std = _channel_statistics(pictures)
    tokenizer = train_tokenizer(captions)
    model = _build_model(vocabulary=len(tokenizer), seed=seed)
    vision = model.vision_model.embeddings
    with torch.no_grad():
        vision.patch_embedding.weight.copy_(whitened_components((pictures - mean) / std))
        vision.position_embedding.weight[1:] = sine_cosine_positions(_IMAGE_SIZE // _PATCH_SIZE)
        vision.position_embedding.weight[0] = 0
    with whole_folder(folder, shared=True) as new:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        _image_processor(mean, std).save_pretrained(new)
    return folder


def train_tokenizer(captions: Sequence[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on captions that lowercases and marks both ends, as CLIP's does.

    It can encode every text, because all single bytes are tokens.
    """
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Lowercase(), normalizers.Strip()]
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=_VOCABULARY,
        min_frequency=2,
        special_tokens=[_BOS, _EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(captions, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A {_EOS}", special_tokens=[(_BOS, _BOS_ID), (_EOS, _EOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_EOS,
        padding_side="right",
        model_max_length=_CONTEXT_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )


def whitened_components(pictures: NDArray[np.float32]) -> Tensor:
    """Return the strongest principal components of all patches as convolution weights.

    Each component has unit variance over the patches that it comes from.

    Args:
        pictures: Normalised pictures, ``[N, H, W, 3]``.

    Returns:
        The components, ``[WIDTH, 3, P, P]``.
    """
    count, side = len(pictures), _PATCH_SIZE
    grid = pictures.shape[1] // side
    patches = pictures.reshape(count, grid, side, grid, side, 3).transpose(0, 1, 3, 5, 2, 4)
    patches_ND = patches.reshape(-1, 3 * side * side).astype(np.float64)
    variances, vectors = np.linalg.eigh(np.cov(patches_ND, rowvar=False))
    strongest = np.argsort(variances)[::-1][:WIDTH]
    # The bound keeps whitening from making noise as strong as edges.
    scale = 1 / np.sqrt(variances[strongest] + 1e-3)
    components = (vectors[:, strongest] * scale).T
    # Libraries differ in the sign of an eigenvector, so the largest entry is made positive.
    largest = np.abs(components).argmax(axis=1)
    components *= np.sign(components[np.arange(len(components)), largest])[:, None]
    return torch.from_numpy(components.astype(np.float32)).view(WIDTH, 3, side, side)


def sine_cosine_positions(grid: int) -> Tensor:
    """Return fixed positions ``[grid · grid, WIDTH]``, half of each for row and for column.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, in two dimensions.
    """
    quarter = WIDTH // 4
    frequencies = 1 / 100 ** (torch.arange(quarter) / quarter)
    angles = torch.arange(grid)[:, None] * frequencies[None, :]
    one = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = one[:, None, :].expand(grid, grid, -1)
    columns = one[None, :, :].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=2).reshape(grid * grid, WIDTH)


def _build_model(*, vocabulary: int, seed: int) -> CLIPModel:
    text: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": _CONTEXT_LENGTH,
        "bos_token_id": _BOS_ID,
        "eos_token_id": _EOS_ID,
        "pad_token_id": _EOS_ID,
    }
    vision: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": _IMAGE_SIZE,
        "patch_size": _PATCH_SIZE,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(config)


def _image_processor(mean: NDArray[np.float32], std: NDArray[np.float32]) -> CLIPImageProcessor:
    return CLIPImageProcessor(
        size={"shortest_edge": _IMAGE_SIZE},
        crop_size={"height": _IMAGE_SIZE, "width": _IMAGE_SIZE},
        image_mean=[round(float(value), 4) for value in mean],
        image_std=[round(float(value), 4) for value in std],
    )


def _sample_pictures(source: Source) -> NDArray[np.float32]:
    """Return evenly spaced pictures of a source, ``[N, H, W, 3]``, values from 0 to 1."""
    chosen = np.unique(np.linspace(0, len(source) - 1, _PICTURES_FOR_COMPONENTS).astype(int))
    size = (_IMAGE_SIZE, _IMAGE_SIZE)
    rows = [np.asarray(open_image(source[int(index)]).resize(size)) for index in chosen]
    return np.stack(rows).astype(np.float32) / np.float32(255)


def _channel_statistics(
    pictures: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return pictures.mean(axis=(0, 1, 2)), pictures.std(axis=(0, 1, 2))
