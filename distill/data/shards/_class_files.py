"""The files of CLIP-benchmark's layout beside shards: names of classes, and templates."""

from pathlib import Path

from distill.data.shards.paths import exists, is_remote, one_line, open_tar
from distill.labels.templates import fill
from export.runtime.errors import DataError

CLASSNAMES = "classnames.txt"
_TEMPLATES = "zeroshot_classification_templates.txt"


class ClassFiles:
    """What stands in the files beside a tar, or in the folder above; None without such a file."""

    def __init__(self, tar: str, classnames: str | Path | None = None) -> None:
        """Read the files; ``classnames`` is one to read in the place of that beside the tar.

        Raises:
            DataError: a file cannot be read, is empty or has an empty line, or a template has no
                place for the class.
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
    """Return the file of a name beside a tar or one folder above."""
    if is_remote(tar):
        folder = tar.rpartition("/")[0]
        places = [f"{folder}/{name}", f"{folder.rpartition('/')[0]}/{name}"]
    else:
        beside = Path(tar).absolute().parent
        places = [str(beside / name), str(beside.parent / name)]
    return next((place for place in places if exists(place)), None)


def _lines(path: str) -> tuple[str, ...]:
    """Return the lines of a file. The number of a line is that of a class, so none is left out."""
    try:
        with one_line(path), open_tar(path) as file:
            content = file.read().decode("utf-8-sig")
    except DataError as error:
        raise DataError(f"{error}; it must be a text file with one entry a line") from error
    lines = tuple(line.strip() for line in content.rstrip().split("\n"))
    if "" in lines:
        place = f"line {lines.index('') + 1} of it" if len(lines) > 1 else "it"
        raise DataError(f"{path}: {place} is empty; it must have one entry a line")
    return lines
