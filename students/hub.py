"""Find the local folder of a model, given as a folder or by its name on the hub.

A folder is used as it is, without network access. A hub name is downloaded to the hub's cache, or
found there. If the hub cannot be reached and nothing is cached, the error names the missing files
and the field that takes a local folder.
"""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from students.messages import shorten

_CONFIG_FILES = ("config.json",)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
# Files that can hold a tokenizer's vocabulary; tokenizer.json alone is enough.
VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
_LEGACY_WEIGHT_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")

# All small files that transformers looks for. Weights are fetched by name.
_SMALL = ("*.json", "*.txt", "*.model")
_WEIGHTS = ("model.safetensors", "model-*.safetensors")
_LEGACY_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*.bin")
_NO_SUBFOLDERS = ("*/*",)
_SECONDS = 5.0


def find_model(name: str | Path, *, field: str, weights: bool = True) -> Path:
    """Return the local folder of a model, downloading it from the hub if necessary.

    Args:
        name: A folder, or a hub name such as ``openai/clip-vit-large-patch14``.
        field: The field of the recipe that names the model, for messages.
        weights: Whether the weights are needed too.

    Raises:
        OSError: The folder or a file in it is missing, and the hub does not provide it. The
            message is one line.
    """
    place = Path(name).expanduser()
    if place.is_file():
        raise OSError(
            f"{field}: {name} is a file; give the folder that holds it and its config.json, or a "
            "name on the hub (for weights of OpenAI or open_clip, use a teacher of kind openai or "
            "open_clip)"
        )
    folder = place if place.is_dir() else _fetch_model(str(name), field=field, weights=weights)
    if weights and not has_weights(folder):
        raise OSError(
            f"{field}: {name} holds no weights; {_WEIGHT_FILES[0]} is missing: put it next to "
            "config.json, or give another folder"
        )
    return folder


def has_weights(folder: Path) -> bool:
    """Tell whether a folder has weights that transformers can load."""
    return any((folder / file).is_file() for file in (*_WEIGHT_FILES, *_LEGACY_WEIGHT_FILES))


def find_file(repository: str, candidates: Sequence[str], *, field: str) -> Path:
    """Return the first of ``candidates`` that a hub repository has, as a local file.

    Args:
        repository: The repository's name on the hub.
        candidates: File names, the preferred one first.
        field: The field of the recipe that takes a local file instead, for messages.

    Raises:
        OSError: The hub provides none of them. The message is one line.
    """
    folder = _fetch(repository, candidates, field=field, wanted=candidates[0])
    for candidate in candidates:
        if (folder / candidate).is_file():
            return folder / candidate
    raise OSError(_missing(repository, candidates[0], field, "the repository has no such file"))


def _fetch_model(name: str, *, field: str, weights: bool) -> Path:
    files = (*_CONFIG_FILES, *(_WEIGHT_FILES[:1] if weights else ()), *_TOKENIZER_FILES)
    wanted = ", ".join(files)
    patterns = (*_SMALL, *(_WEIGHTS if weights else ()))
    folder = _fetch(name, patterns, field=field, wanted=wanted)
    if weights and not has_weights(folder):
        folder = _fetch(name, _LEGACY_WEIGHTS, field=field, wanted=wanted)
    return folder


def _fetch(name: str, patterns: Sequence[str], *, field: str, wanted: str) -> Path:
    """Download files of a hub repository, or find them in the hub's cache."""
    unreachable = None
    try:
        # Ask first: unlike a download, this neither retries nor waits.
        HfApi().model_info(name, timeout=_SECONDS)
    except HFValidationError as error:
        raise OSError(
            f"{field}: {name} is neither an existing folder nor a valid name on the hub"
        ) from error
    except Exception as error:  # The HTTP client's errors share no base class with the hub's.
        unreachable = error
    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=list(patterns),
                ignore_patterns=list(_NO_SUBFOLDERS),
                local_files_only=unreachable is not None,
                etag_timeout=_SECONDS,
            )
        )
    except LocalEntryNotFoundError as error:
        reason = "it is not in the hub's cache" if unreachable is None else shorten(unreachable)
        raise OSError(_missing(name, wanted, field, reason)) from error
    except Exception as error:
        raise OSError(_missing(name, wanted, field, shorten(error))) from error


def _missing(name: str, wanted: str, field: str, reason: str) -> str:
    return (
        f"{field}: {name} is not a local folder and cannot be loaded from the hub ({reason}); "
        f"missing: {wanted}; download it where the hub can be reached, and give the local path as "
        f"{field}"
    )
