"""Turn the errors and the chatter of libraries into single lines that a user can act on."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging

_LONGEST = 300
# How torch names the function that a pickle asks to call.
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
    """Return the text of an error on one line, cut to 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def refusal(error: pickle.UnpicklingError) -> str:
    """Say why weights were refused, leaving out torch's advice to load them anyway."""
    if asked := _ASKED.search(str(error)):
        return (
            f"it asks to call {asked.group(1)}, which is refused: loading weights never runs code; "
            "save the state dict alone, with safetensors or torch.save"
        )
    return (
        "it is damaged or pickles something other than weights, and none of it was run; save the "
        "state dict alone, with safetensors or torch.save"
    )


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn a library's exception into one line that starts with ``what``.

    Args:
        what: The user's file or field, and what failed.

    Raises:
        ValueError: The library raised a ``ValueError``, or a configuration rejected a value.
        OSError: The library raised anything else.
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
    """Hide the load reports and progress bars of transformers; errors are still raised."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
