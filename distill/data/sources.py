"""Sources by their configuration, and what the command line's ``--data`` means."""

from pathlib import Path
from typing import Any

from distill.config_data import ScenesSource
from distill.config_data import Source as SourceConfig
from distill.data.folder import is_picture, listed, open_folder, walk
from distill.data.sample import Source
from distill.data.scenes import render_scenes
from distill.data.shard_paths import is_shards
from distill.data.shards import open_shards
from distill.data.table import TABLE_SUFFIXES, open_table
from export.runtime.errors import DataError

SHOWN = 8


def open_source(config: SourceConfig, *, output: Path, index_folder: Path | None = None) -> Source:
    """Open what a data section of a recipe names; scenes without a path are rendered in ``output``.

    ``index_folder`` is for indices of shards that cannot stand beside them.

    Raises:
        DataError: the data cannot be used.
    """
    match config.kind:
        case "table":
            return open_table(
                config.path,
                image_column=config.image_column,
                caption_column=config.caption_column,
                label_column=config.label_column,
                image_root=config.image_root,
            )
        case "folder":
            return open_folder(config.path, templates=config.templates)
        case "scenes":
            table = render_scenes(
                output / scenes_name(config) if config.path is None else Path(config.path),
                count=config.count,
                seed=config.seed,
                image_size=config.image_size,
                split=config.split,
                captioned=config.captioned,
            )
            return open_table(table)
        case "shards":
            return open_shards(
                config.path,
                caption_key=config.caption_key,
                classnames=config.classnames,
                index_folder=index_folder,
            )


def guess_source(path: str) -> dict[str, Any]:
    """Return the data section that a path on the command line stands for: its kind and path.

    A ``.csv``, ``.tsv``, ``.txt`` or ``.parquet`` file is a table, a folder with exactly one such
    file is that table, a folder of folders of pictures is classes. A ``.tar``, a pattern of them,
    an address or a folder with tars is shards.

    Raises:
        DataError: it is anything else; the message says what was looked for and found.
    """
    if is_shards(path):
        return {"kind": "shards", "path": path}
    place = Path(path)
    looked_for = f"a table ({', '.join(TABLE_SUFFIXES)}), or a folder with one table or of classes"
    if place.is_file():
        if place.suffix.lower() in TABLE_SUFFIXES:
            return {"kind": "table", "path": path}
        raise DataError(f"{path}: {looked_for} was looked for; found another kind of file")
    if not place.is_dir():
        raise DataError(f"{path}: {looked_for} was looked for; found nothing")
    files, folders = listed(place)
    tables = [name for name in files if Path(name).suffix.lower() in TABLE_SUFFIXES]
    if len(tables) == 1:
        return {"kind": "table", "path": str(place / tables[0])}
    if len(tables) > 1:
        raise DataError(
            f"{path}: found {len(tables)} tables in it ({_some(tables)}); name the one to read, "
            f"such as {place / tables[0]}"
        )
    if any(is_picture(file) for name in folders for file in walk(place / name)):
        return {"kind": "folder", "path": path}
    pictures = sum(map(is_picture, files))
    raise DataError(
        f"{path}: {looked_for} was looked for; found no table, {len(folders)} folders without "
        f"pictures, {pictures} pictures directly in it and {len(files) - pictures} other files; "
        "put the pictures of each class into a folder of its name, or write a table of them"
    )


def scenes_name(config: ScenesSource) -> str:
    """Return the folder inside the run folder that scenes without a path are rendered in."""
    parts = [config.split, config.count, f"{config.image_size}px", f"seed{config.seed}"]
    if config.captioned is not None:
        parts.append(f"captioned{config.captioned}")
    return "-".join(["scenes", *map(str, parts)])


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
