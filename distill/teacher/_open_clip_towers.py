"""A built model of open_clip_torch as a teacher, with its own tokenizer and preprocessing."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import get_input_dtype
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from distill.teacher._fingerprint import tensor_fingerprint
from distill.teacher._frozen import Declared, FrozenTeacher
from export.runtime.errors import BundleError
from export.runtime.preprocess import Preprocessing
from students.messages import quiet

# open_clip's names of precisions; it keeps norms in float32, as OpenAI's code does.
PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
# The most letters of a token, with the single space that cleaning leaves between words.
_LONGEST_TOKEN = 33
# Fields of transformers' configurations that say where a model was or who wrote it.
_NOT_THE_MODEL = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


class OpenClipTokenizer:
    """A tokenizer of open_clip that takes texts of any length.

    Args:
        tokenizer: A tokenizer that ``open_clip.get_tokenizer`` returns.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.name = type(tokenizer).__name__
        self.context_length = int(tokenizer.context_length)
        self._most_letters = _LONGEST_TOKEN * self.context_length

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Turn texts into token ids, int64 ``[N, context_length]``, cut and padded."""
        ids: Tensor = self._tokenizer([self._shortened(text) for text in texts])
        return ids

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has before it is cut."""
        texts = [self._shortened(text) for text in texts]
        if isinstance(self._tokenizer, SimpleTokenizer):
            return [len(self._tokenizer.encode(text)) + 2 for text in texts]
        cleaned = [self._tokenizer.clean_fn(text) for text in texts]
        # CLIPS keeps a place for its class token, besides the start and end tokens.
        clips = getattr(self._tokenizer, "tokenizer_mode", "") == "clips"
        whole = self._tokenizer.tokenizer(
            cleaned, add_special_tokens=not clips, return_attention_mask=False, verbose=False
        )
        return [len(ids) + 3 * clips for ids in whole["input_ids"]]

    @property
    def vocabulary(self) -> int:
        """The number of tokens in the vocabulary."""
        inner = getattr(self._tokenizer, "tokenizer", None)
        return int(self._tokenizer.vocab_size) if inner is None else len(inner)

    def settings(self) -> dict[str, Any]:
        """Return everything that its tokens depend on, as values that JSON can hold."""
        inner = getattr(self._tokenizer, "tokenizer", None)
        if inner is None:
            # In the order of their ids.
            words: Any = " ".join(self._tokenizer.encoder)
        elif inner.is_fast:
            words = inner.backend_tokenizer.to_str()
        else:
            words = inner.get_vocab()
        plain = {
            key: value
            for key, value in vars(self._tokenizer).items()
            if isinstance(value, str | int | bool | None)
        }
        clean = getattr(getattr(self._tokenizer, "clean_fn", None), "__name__", "")
        return {"class": self.name, "clean": clean, "words": words, **plain}

    def _shortened(self, text: str) -> str:
        # SimpleTokenizer takes seconds to split a word of ten thousand letters.
        if len(text) <= self._most_letters or not isinstance(self._tokenizer, SimpleTokenizer):
            return text
        return str(self._tokenizer.clean_fn(text))[: self._most_letters]


class OpenClipTeacher(FrozenTeacher):
    """A model of open_clip that follows the ``Teacher`` protocol.

    Args:
        model: A CLIP, CustomTextCLIP or CoCa of open_clip, with its preprocessing set.
        tokenizer: Its own tokenizer.
        name: Its name in messages.
        weights: The file that its weights were read from.
        config: The configuration that it was built from.
        dtype: The dtype that it computes in.

    Raises:
        ValueError: The tokenizer has more tokens than the model embeds; one line.
        BundleError: The toolkit does not support its preprocessing.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: OpenClipTokenizer,
        *,
        name: str,
        weights: Path,
        config: Mapping[str, Any],
        dtype: str,
    ) -> None:
        rows = int(getattr(model, "vocab_size", 0))
        if rows and tokenizer.vocabulary > rows:
            raise ValueError(
                f"{name}: its tokenizer {tokenizer.name} has {tokenizer.vocabulary} tokens, but "
                f"the text tower embeds {rows}"
            )
        self._towers = model
        self._tokens = tokenizer
        self._dtype: torch.dtype = get_input_dtype(PRECISIONS[dtype]) or torch.float32
        preprocessing = read_preprocessing(model.visual.preprocess_cfg)
        settings = {
            "config": config,
            "text": _text_settings(model),
            "tokenizer": tokenizer.settings(),
            "preprocessing": preprocessing.to_dict(),
            "dtype": dtype,
        }
        declared = Declared(
            name=name,
            tokenizer=tokenizer.name,
            context_length=tokenizer.context_length,
            preprocessing=preprocessing,
            logit_scale=float(model.logit_scale.detach().float().exp()),
            logit_bias=0.0 if model.logit_bias is None else float(model.logit_bias.detach()),
            fingerprint=tensor_fingerprint(model.state_dict(), settings),
            bytes=weights.stat().st_size,
        )
        super().__init__(model, declared, device=model.logit_scale.device)

    def _embed_values(self, values: Tensor) -> Tensor:
        return _normalised(self._towers.encode_image(values.to(self._dtype)))

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        return _normalised(self._towers.encode_text(self._tokens(texts).to(self._levels.device)))

    def _token_counts(self, texts: Sequence[str]) -> list[int]:
        return self._tokens.counts(texts)


def read_preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    """Translate open_clip's evaluation preprocessing, which is torchvision on Pillow images.

    Args:
        values: ``size``, ``mean``, ``std``, ``interpolation`` and ``resize_mode``, as open_clip
            keeps them with a model.

    Raises:
        BundleError: ``Preprocessing`` cannot express it.
    """
    size = values["size"]
    height, width = (size, size) if isinstance(size, int) else size
    mode = values["resize_mode"]
    if mode not in ("shortest", "squash") or (mode == "shortest" and height != width):
        raise BundleError(
            f"open_clip's preprocessing, resize_mode: found {mode} to {height} x {width}, which "
            "is not supported; must be squash, or shortest to a square"
        )
    squash = mode == "squash"
    return Preprocessing(
        size=(height, width),
        resize="square" if squash else "shortest",
        resize_to=None if squash else height,
        crop=not squash,
        crop_offset="round",
        # open_clip's third choice, random, means bicubic outside training.
        resample="bilinear" if values["interpolation"] == "bilinear" else "bicubic",
        mean=_channels(values["mean"]),
        std=_channels(values["std"]),
    )


@contextmanager
def silent() -> Iterator[None]:
    """Keep the logs and warnings of open_clip, timm and transformers off the terminal."""
    root, handler, level = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    # Without a handler, the first message to the root logger would install one permanently.
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.removeHandler(handler)


def _channels(values: Any) -> tuple[float, float, float]:
    red, green, blue = values if isinstance(values, Sequence) else (values,) * 3
    return float(red), float(green), float(blue)


def _normalised(features: Any) -> Tensor:
    # Towers that were built to return their tokens return them second.
    pooled: Tensor = features[0] if isinstance(features, tuple) else features
    return F.normalize(pooled.float(), dim=-1)


def _text_settings(model: nn.Module) -> dict[str, Any]:
    """Return the configuration of a text tower from transformers, empty for open_clip's own."""
    config = getattr(getattr(model, "text", None), "config", None)
    if config is None:
        return {}
    values = json.loads(config.to_json_string(use_diff=False))
    return {key: value for key, value in values.items() if key not in _NOT_THE_MODEL}
