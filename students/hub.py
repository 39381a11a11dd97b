"""Models by folder or by hub name, always ending in a local folder.

A folder is used as it is, without any access to the network. A hub name is fetched into the hub's
cache, or found there; with the hub out of reach and nothing cached, the error says at once which
files are missing and where to put them.
"""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from students.messages import shorten

_CONFIG_FILES = ("config.json",)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
# What a tokenizer's words can be kept in, the first of them alone where it is there.
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

# Small files of every kind that transformers looks for; weights are fetched by name.
_SMALL = ("*.json", "*.txt", "*.model")
_WEIGHTS = ("model.safetensors", "model-*.safetensors")
_LEGACY_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*.bin")
_NO_SUBFOLDERS = ("*/*",)
_SECONDS = 5.0


def find_model(name: str | Path, *, field: str, weights: bool = True) -> Path:
    """The local folder of a model that is named by a folder or by a hub name.

    Args:
        name: A folder, or a name such as ``openai/clip-vit-large-patch14``.
        field: What the folder can be given as; messages say so.
        weights: Whether the weights are needed too.

    Raises:
        OSError: There is no such folder, or the hub does not give the files; one line.
    """
    place = Path(name).expanduser()
    if place.is_file():
        raise OSError(
            f"{field}: {name} is a file; give the folder in which it lies with its config.json, or "
            "a name on the hub (weights of OpenAI and open_clip are teachers of kind openai and "
            "open_clip)"
        )
    folder = place if place.is_dir() else _fetch_model(str(name), field=field, weights=weights)
    if weights and not has_weights(folder):
        raise OSError(
            f"{field}: {name} holds no weights; {_WEIGHT_FILES[0]} is missing, put it beside "
            f"config.json or give another folder"
        )
    return folder


def has_weights(folder: Path) -> bool:
    """Whether weights that transformers loads lie in a folder."""
    return any((folder / file).is_file() for file in (*_WEIGHT_FILES, *_LEGACY_WEIGHT_FILES))


def find_file(repository: str, candidates: Sequence[str], *, field: str) -> Path:
    """The first of ``candidates`` that a hub repository has, as a local file.

    Raises:
        OSError: The hub gives none of them; one line.
    """
    folder = _fetch(repository, candidates, field=field, wanted=candidates[0])
    for candidate in candidates:
        if (folder / candidate).is_file():
            return folder / candidate
    raise OSError(_missing(repository, candidates[0], field, "the hub has no such file"))


def _fetch_model(name: str, *, field: str, weights: bool) -> Path:
    files = (*_CONFIG_FILES, *(_WEIGHT_FILES[:1] if weights else ()), *_TOKENIZER_FILES)
    wanted = ", ".join(files)
    patterns = (*_SMALL, *(_WEIGHTS if weights else ()))
    folder = _fetch(name, patterns, field=field, wanted=wanted)
    if weights and not has_weights(folder):
        folder = _fetch(name, _LEGACY_WEIGHTS, field=field, wanted=wanted)
    return folder


def _fetch(name: str, patterns: Sequence[str], *, field: str, wanted: str) -> Path:
    """Fetch files of a hub repository, or find them in the hub's cache."""
    unreachable = None
    try:
        # Asked first because it neither retries nor waits, as a download does.
        HfApi().model_info(name, timeout=_SECONDS)
    except HFValidationError as error:
        raise OSError(
            f"{field}: {name} is neither a folder that is there nor a name on the hub"
        ) from error
    except Exception as error:  # the http client's own errors have no root in common with ours
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
        reason = "the hub's cache does not hold it" if unreachable is None else shorten(unreachable)
        raise OSError(_missing(name, wanted, field, reason)) from error
    except Exception as error:
        raise OSError(_missing(name, wanted, field, shorten(error))) from error


def _missing(name: str, wanted: str, field: str, reason: str) -> str:
    return (
        f"{field}: {name} is no local folder and cannot be had from the hub ({reason}); missing: "
        f"{wanted}; download where the hub can be reached and give the local path as {field}"
    )
