"""The exceptions that a user's mistake raises.

The tree::

    ClipDistillError          the command line prints its one line and exits with status 2
    ├── RecipeError           a recipe, a --set or an argument is wrong
    ├── DataError             a table, a folder or a picture cannot be used
    ├── TeacherError          a teacher cannot be loaded, or does not fit the recipe
    ├── StudentError          a student cannot be built or loaded, or does not fit the recipe
    ├── CacheError            cached embeddings do not fit the teacher, the views or the data
    ├── RunError              a run folder holds another run, or the processes do not fit
    ├── ExportError           a student cannot be exported, or its graph differs from it
    ├── BundleError           a bundle is missing, incomplete or damaged
    └── MissingExtraError     a command needs an extra that is not installed

Every message is one line that names the file or field, what was found, what is allowed and how to
fix it.
"""


class ClipDistillError(Exception):
    """Root of all errors that the user can fix; the message is one complete line."""


class RecipeError(ClipDistillError):
    """A recipe, a ``--set`` or a command-line argument is wrong."""


class DataError(ClipDistillError):
    """A table, a folder or a picture cannot be used."""


class TeacherError(ClipDistillError):
    """A teacher cannot be loaded, or does not fit the recipe."""


class StudentError(ClipDistillError):
    """A student cannot be built or loaded, or does not fit the recipe."""


class CacheError(ClipDistillError):
    """Cached embeddings do not fit the teacher, the views or the data."""


class RunError(ClipDistillError):
    """A run folder holds another run, or the processes do not fit together."""


class ExportError(ClipDistillError):
    """A student cannot be exported, or its ONNX graph differs from it."""


class BundleError(ClipDistillError):
    """A bundle is missing, incomplete or damaged."""


class MissingExtraError(ClipDistillError):
    """A command needs an extra that is not installed."""


def visible(text: str) -> str:
    """Return a text on one line, with everything that cannot be printed escaped.

    Args:
        text: The name of a file, or any other text.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def reason_of(error: BaseException) -> str:
    """Return the text of an exception on one line, cut to 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."
