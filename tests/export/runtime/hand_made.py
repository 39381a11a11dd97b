"""A bundle made by hand, with two graphs that are small enough to compute in numpy."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.lazy import lazy_imports

with lazy_imports():
    import onnx
    from onnx import TensorProto, helper, numpy_helper

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "red", "green", "blue", "."]
HEIGHT, WIDTH, EMBEDDING = 4, 6, 5
_RANDOM = np.random.default_rng(5)
COLOUR_WEIGHTS = _RANDOM.normal(size=(3, EMBEDDING)).astype(np.float32)
WORD_VECTORS = _RANDOM.normal(size=(len(WORDS), EMBEDDING)).astype(np.float32)

MANIFEST: dict[str, Any] = {
    "format": 1,
    "name": "by hand",
    "created_by": "clip-distill 0.1.0",
    "image": {
        "file": "image.onnx",
        "input": "pixels",
        "output": "image_embeds",
        "width": EMBEDDING,
        "preprocessing": {
            "size": [HEIGHT, WIDTH],
            "resize": "square",
            "resize_to": None,
            "crop": False,
            "crop_offset": "floor",
            "resample": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "rescale": 1 / 255,
        },
    },
    "text": {
        "file": "text.onnx",
        "tokenizer": "tokenizer.json",
        "inputs": ["input_ids", "attention_mask"],
        "output": "text_embeds",
        "width": EMBEDDING,
        "context_length": 8,
        "padding": "longest",
        "pad_token_id": 0,
        "mask_padding": True,
    },
    "logit_scale": 20.0,
    "logit_bias": -1.5,
    "templates": ["a photo of a {}."],
}


def image_reference(pixels: np.ndarray) -> np.ndarray:
    """Compute what the image graph does: the mean colour, projected and normalised."""
    colours = (pixels / 127.5 - 1).mean(axis=(1, 2)) @ COLOUR_WEIGHTS
    return colours / np.linalg.norm(colours, axis=1, keepdims=True)


def text_reference(*words: str) -> np.ndarray:
    """Compute what the text graph does: the normalised sum of the words' vectors."""
    ids = [WORDS.index(word) for word in ("[CLS]", *words, "[SEP]")]
    total = WORD_VECTORS[ids].astype(np.float64).sum(axis=0)
    return total / np.linalg.norm(total)


def _save(
    path: Path, nodes: list[Any], inputs: list[Any], output: str, weights: np.ndarray
) -> None:
    end = [
        helper.make_node("ReduceL2", ["raw", "last"], ["norm"], keepdims=1),
        helper.make_node("Div", ["raw", "norm"], [output]),
    ]
    constants = {
        "weights": weights,
        "middle": np.array([1, 2], np.int64),
        "last": np.array([-1], np.int64),
        "one": np.array([1], np.int64),
        "half": np.array(127.5, np.float32),
        "unit": np.array(1, np.float32),
    }
    graph = helper.make_graph(
        [*nodes, *end],
        "by_hand",
        inputs,
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", EMBEDDING])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def write_image_graph(path: Path) -> None:
    node = helper.make_node
    nodes = [
        node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        node("Div", ["float", "half"], ["scaled"]),
        node("Sub", ["scaled", "unit"], ["centred"]),
        node("ReduceMean", ["centred", "middle"], ["colour"], keepdims=0),
        node("MatMul", ["colour", "weights"], ["raw"]),
    ]
    shape = ["batch", HEIGHT, WIDTH, 3]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)
    _save(path, nodes, [pixels], "image_embeds", COLOUR_WEIGHTS)


def write_text_graph(path: Path) -> None:
    node = helper.make_node
    nodes = [
        node("Gather", ["weights", "input_ids"], ["vectors"]),
        node("Cast", ["attention_mask"], ["float"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["float", "last"], ["mask"]),
        node("Mul", ["vectors", "mask"], ["masked"]),
        node("ReduceSum", ["masked", "one"], ["raw"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    _save(path, nodes, inputs, "text_embeds", WORD_VECTORS)


def word_tokenizer() -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer
