"""Keeping what libraries say to what a person can use."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging

_LONGEST = 300
# What a pickle wanted to call, in the words of torch.
_ASKED = re.compile(r"\bGLOBAL (\S+)")
ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    SafetensorError,
    StrictDataclassError,
)


def shorten(error: BaseException) -> str:
    """The text of an error in one line of bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def refusal(error: pickle.UnpicklingError) -> str:
    """Say why weights were refused, without torch's advice to load them all the same."""
    if asked := _ASKED.search(str(error)):
        return (
            f"it asks to call {asked.group(1)}, which is refused, since reading weights runs no "
            "code that comes with them; save the state dict alone, with safetensors or torch.save"
        )
    return (
        "it is damaged, or a pickle of something else than weights, of which nothing was run; save "
        "the state dict alone, with safetensors or torch.save"
    )


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn what a library raises about a user's file or field into one line that opens with it.

    Raises:
        ValueError: The library raised one, or a configuration refused a value.
        OSError: It raised something else.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        raise OSError(f"{what}: {refusal(error)}") from error
    except ERRORS as error:
        kind = ValueError if isinstance(error, ValueError | StrictDataclassError) else OSError
        raise kind(f"{what}: {shorten(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' load reports and bars off the terminal; what matters is raised."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
