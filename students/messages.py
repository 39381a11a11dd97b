"""Keeping what libraries say to what a person can use."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging

_LONGEST = 300
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


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn what a library raises about a user's file or field into one line that opens with it.

    Raises:
        ValueError: The library raised one, or a configuration refused a value.
        OSError: It raised something else.
    """
    try:
        yield
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
