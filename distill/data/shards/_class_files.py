"""The files next to shards in CLIP-benchmark's layout: class names and templates."""

from pathlib import Path

from distill.data.shards.paths import exists, is_remote, one_line, open_tar
from distill.labels.templates import fill
from export.runtime.errors import DataError

CLASSNAMES = "classnames.txt"
_TEMPLATES = "zeroshot_classification_templates.txt"


class ClassFiles:
    """The class names and templates from a tar's folder or its parent; None without the file."""

    def __init__(self, tar: str, classnames: str | Path | None = None) -> None:
        """Read the files; ``classnames`` is read instead of the file next to the tar.

        Raises:
            DataError: A file cannot be read, is empty or has an empty line, or a template has no
                ``{}`` or ``{c}``.
        """
        named = _near(tar, CLASSNAMES) if classnames is None else str(classnames)
        templates = _near(tar, _TEMPLATES)
        self.class_names = None if named is None else _lines(named)
        self.templates = None if templates is None else _lines(templates)
        for template in self.templates or ():
            try:
                fill(template, "class")
            except DataError as error:
                raise DataError(f"{templates}: {error}") from error


def _near(tar: str, name: str) -> str | None:
    """Return a file of a tar's folder or its parent, None if neither has it."""
    if is_remote(tar):
        folder = tar.rpartition("/")[0]
        places = [f"{folder}/{name}", f"{folder.rpartition('/')[0]}/{name}"]
    else:
        beside = Path(tar).absolute().parent
        places = [str(beside / name), str(beside.parent / name)]
    return next((place for place in places if exists(place)), None)


def _lines(path: str) -> tuple[str, ...]:
    """Return all lines of a file; the number of a line is the number of a class."""
    try:
        with one_line(path), open_tar(path) as file:
            content = file.read().decode("utf-8-sig")
    except DataError as error:
        raise DataError(f"{error}; it must be a text file with one entry per line") from error
    lines = tuple(line.strip() for line in content.rstrip().split("\n"))
    if "" in lines:
        place = f"line {lines.index('') + 1}" if len(lines) > 1 else "it"
        raise DataError(f"{path}: {place} is empty; each line must have an entry")
    return lines
