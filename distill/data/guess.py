"""Guessing what a path on the command line stands for."""

from pathlib import Path
from typing import Any

from distill.data.marks import SAVED_FILES, TABLE_SUFFIXES
from distill.data.pictures import is_picture, walk
from distill.data.shards.paths import is_shards
from distill.labels.folders import listed
from export.runtime.errors import DataError

_SHOWN = 8
_TABLES_IN_FOLDERS = tuple(suffix for suffix in TABLE_SUFFIXES if suffix != ".json")


def guess_source(path: str, *, unlabelled: bool = False) -> dict[str, Any]:
    """Return the kind and path of the source that a path on the command line stands for.

    - ``shards``: a ``.tar``, a pattern, an address, or a folder with tars.
    - ``table``: a file with the suffix of a table, or a folder with exactly one such file
      (``.json`` does not count there, since it may be anything).
    - ``hub``: a folder that ``save_to_disk`` wrote, or a folder with several Parquet files in it
      or in its subfolders.
    - ``folder``: a folder of folders of pictures, which are classes.
    - ``images``: a folder of pictures.

    With ``unlabelled``, a folder with pictures is ``images`` even if its subfolders hold pictures
    too, and a table next to pictures is ignored.

    Raises:
        DataError: The path is none of these; the message says what was expected and found.
    """
    if is_shards(path):
        return {"kind": "shards", "path": path}
    place = Path(path)
    looked_for = (
        f"a table ({', '.join(TABLE_SUFFIXES)}), or a folder with one table, of pictures, or of "
        "classes"
    )
    if place.is_file():
        if place.suffix.lower() in TABLE_SUFFIXES:
            return {"kind": "table", "path": path}
        raise DataError(f"{path}: expected {looked_for}; found another kind of file")
    if not place.is_dir():
        raise DataError(f"{path}: expected {looked_for}; found nothing")
    files, folders = listed(place)
    if not set(SAVED_FILES).isdisjoint(files):
        return {"kind": "hub", "path": path}
    if unlabelled and any(map(is_picture, files)):
        return {"kind": "images", "path": path}
    if unlabelled and _nested(place, folders):
        return {"kind": "folder", "path": path}
    tables = [name for name in files if Path(name).suffix.lower() in _TABLES_IN_FOLDERS]
    if len(tables) == 1:
        return {"kind": "table", "path": str(place / tables[0])}
    if len(tables) > 1 and all(map(_is_parquet, tables)):
        return {"kind": "hub", "path": path}
    if len(tables) > 1:
        raise DataError(
            f"{path}: found {len(tables)} tables in it ({_some(tables)}); name the one to read, "
            f"such as {place / tables[0]}"
        )
    return {"kind": _kind_of_folder(place, files, folders, looked_for), "path": path}


def _nested(place: Path, folders: list[str]) -> bool:
    """Tell whether any subfolder holds a picture."""
    return any(is_picture(file) for name in folders for file in walk(place / name))


def _kind_of_folder(place: Path, files: list[str], folders: list[str], looked_for: str) -> str:
    """Return the kind of a folder that has no table."""
    pictures = sum(map(is_picture, files))
    nested = _nested(place, folders)
    if pictures and nested:
        raise DataError(
            f"{place}: found {pictures} pictures in it and others in its subfolders; say in a "
            "recipe whether the folders are classes (kind: folder) or not (kind: images), or use "
            f"--set 'data.train={{kind: images, path: {place}}}' without --data"
        )
    if pictures or nested:
        return "images" if pictures else "folder"
    if any(_is_parquet(file) for name in folders for file in walk(place / name)):
        return "hub"
    raise DataError(
        f"{place}: expected {looked_for}; found no table, {len(folders)} folders without "
        f"pictures, no pictures and {len(files)} other files"
    )


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(".parquet")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
