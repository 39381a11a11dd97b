"""Check and complete the fields of transformers configurations that users write."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

# Fields that say where a configuration came from, not what it builds.
_PROVENANCE = ("_name_or_path", "architectures", "dtype", "transformers_version")


def kept_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that describe a model, without those about its origin."""
    return {name: value for name, value in fields.items() if name not in _PROVENANCE}


def check_fields(
    fields: Mapping[str, Any], config_class: type[PreTrainedConfig], *, where: str
) -> None:
    """Reject fields that the configuration class would store but never read.

    Args:
        fields: The fields to check.
        config_class: The class that they are meant for.
        where: The field of the recipe that they are in.

    Raises:
        ValueError: The class has no such field; the message suggests the nearest one.
    """
    known = [field.name for field in dataclasses.fields(config_class)]
    known += ["model_type", *config_class.attribute_map]
    for name in fields:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"{where}.{name}: {config_class.__name__} has no such field{hint}")


def with_token_ids(fields: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the fields of a text tower, with missing token ids taken from the tokenizer."""
    ids = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return {**{name: value for name, value in ids.items() if value is not None}, **fields}
