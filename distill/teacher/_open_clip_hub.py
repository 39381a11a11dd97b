"""Fetching the files that open_clip's configurations name on the hub.

They are fetched before open_clip asks for them, because open_clip retries for a minute if the hub
is out of reach.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import download_pretrained_from_url

from students.hub import find_file

CONFIG = "open_clip_config.json"
WEIGHTS = (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
_FIELD = "teacher.model"


def fetch_weights(pretrained: Mapping[str, Any]) -> Path:
    """Return the weights file of one of open_clip's pretrained entries.

    Raises:
        OSError: It cannot be fetched; one line.
    """
    if "file" in pretrained:
        return Path(pretrained["file"])
    if not pretrained.get("hf_hub"):
        return Path(download_pretrained_from_url(pretrained["url"]))
    repository, _, file = pretrained["hf_hub"].rpartition("/")
    return find_weights(repository, (file,) if file else WEIGHTS)


def find_weights(repository: str, files: tuple[str, ...] = WEIGHTS) -> Path:
    """Return the first of the files that a hub repository has.

    Raises:
        OSError: None of them can be fetched; one line.
    """
    *others, last = files
    for file in others:
        try:
            return find_file(repository, (file,), field=_FIELD)
        except OSError:
            continue
    return find_file(repository, (last,), field=_FIELD)


def find_config(repository: str) -> Path:
    """Return the folder with a hub repository's ``open_clip_config.json``.

    Raises:
        OSError: It cannot be fetched; one line.
    """
    return find_file(repository, (CONFIG,), field=_FIELD).parent
