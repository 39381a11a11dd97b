"""The exceptions that a user's mistake raises, one line each.

The tree::

    ClipDistillError          a finished sentence for people; the command line exits with status 2
    ├── RecipeError           a recipe, a --set or an argument
    ├── DataError             a table, a folder, a picture
    ├── TeacherError          a teacher that cannot be loaded or does not fit
    ├── StudentError          a student that cannot be built, loaded or does not fit
    ├── CacheError            cached embeddings that do not fit what is asked
    ├── RunError              a run folder that holds something else, or processes that do not fit
    ├── ExportError           a student that cannot be exported, or differs from its ONNX form
    ├── BundleError           a bundle that is missing, incomplete or damaged
    └── MissingExtraError     a command that needs an extra which is not installed

Every message names the file or field, what was found, what is allowed and the way out.
"""


class ClipDistillError(Exception):
    """Root of all errors that are the user's to mend; its text is one finished line."""


class RecipeError(ClipDistillError):
    """A recipe, a ``--set`` or a command-line argument is wrong."""


class DataError(ClipDistillError):
    """A table, a folder or a picture cannot be used."""


class TeacherError(ClipDistillError):
    """A teacher cannot be loaded, or does not fit the recipe."""


class StudentError(ClipDistillError):
    """A student cannot be built or loaded, or does not fit the recipe."""


class CacheError(ClipDistillError):
    """Cached embeddings do not fit the teacher, the views or the data asked for."""


class RunError(ClipDistillError):
    """A run folder holds something else, or the processes do not fit together."""


class ExportError(ClipDistillError):
    """A student cannot be exported, or its ONNX form differs from it."""


class BundleError(ClipDistillError):
    """A bundle is missing, incomplete or damaged."""


class MissingExtraError(ClipDistillError):
    """A command needs an extra that is not installed."""


def visible(text: str) -> str:
    """Return the name of a file, or another text, on one line: what cannot be printed, escaped."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
