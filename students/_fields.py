"""The fields of transformers' configurations, as people write them."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

# What says where a configuration came from, and not what it builds.
_PROVENANCE = ("_name_or_path", "architectures", "dtype", "transformers_version")


def kept_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that say what a model is."""
    return {name: value for name, value in fields.items() if name not in _PROVENANCE}


def check_fields(
    fields: Mapping[str, Any], config_class: type[PreTrainedConfig], *, where: str
) -> None:
    """Refuse fields that a configuration would keep without ever reading them.

    Raises:
        ValueError: A field is none of the class's; the line gives the nearest one.
    """
    known = [field.name for field in dataclasses.fields(config_class)]
    known += ["model_type", *config_class.attribute_map]
    for name in fields:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"{where}.{name}: {config_class.__name__} has no such field{hint}")


def with_token_ids(fields: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Fields of a text tower, with the tokenizer's size and ids where they leave these out."""
    ids = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return {**{name: value for name, value in ids.items() if value is not None}, **fields}
