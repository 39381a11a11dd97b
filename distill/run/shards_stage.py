"""Writing shards: from a recipe or a path to folders of tars."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from distill.basis.progress import make_console
from distill.data.open import open_source
from distill.data.sample import check_source, limit_pixels
from distill.data.shards.write import ShardSettings, write_shards
from distill.recipe.config import RunConfig
from distill.recipe.defaults import default_values
from distill.recipe.load import read_recipe, resolve

_RECIPES = (".yaml", ".yml")
# Completes a recipe that has only data. Writing shards does not use these values.
_NO_DATA = {"teacher": None, "student": {"width": 8}, "losses": {"contrastive": 1.0}}


def write_data(
    given: str,
    out: Path,
    *,
    size: int | None = None,
    per_shard: int = 1000,
    overrides: Sequence[str] = (),
) -> None:
    """Write the training data of a recipe, or the data at a path, as tars in ``out``.

    Each of several sources gets a folder inside ``out``, named by its number.

    Raises:
        ClipDistillError: Recipe, data or folder cannot be used.
        KeyboardInterrupt: Ctrl-C was pressed; the text says what was saved.
    """
    config = _config(given, overrides)
    settings = ShardSettings(
        size=size,
        per_shard=per_shard,
        workers=config.data.workers,
        max_skipped=config.data.max_skipped,
    )
    sources, console = config.train_sources, make_console()
    for number, entry in enumerate(sources):
        folder = out / str(number) if len(sources) > 1 else out
        # Scenes without a path are rendered into a temporary folder.
        with tempfile.TemporaryDirectory() as rendered:
            source = limit_pixels(open_source(entry, output=Path(rendered)), config.data.max_pixels)
            check_source(source, max_skipped=settings.max_skipped)
            written = write_shards(source, folder, settings)
        left_out = len(written.skipped) + len(source.skipped)
        console.print(
            f"shards: {folder} holds {written.samples:,} samples in {written.shards:,} shards, "
            f"{written.bytes / 1e6:.1f} MB" + (f"; {left_out:,} left out" if left_out else "")
        )
        for skip in [*source.skipped, *written.skipped][:3]:
            console.print(f"shards: left out {skip.where}: {skip.reason}", markup=False)


def _config(given: str, overrides: Sequence[str]) -> RunConfig:
    if Path(given).suffix.lower() in _RECIPES:
        values = read_recipe(Path(given))
        if isinstance(values, dict) and not values.keys() & _NO_DATA.keys():
            values = {**values, **_NO_DATA}
        return resolve(values, overrides=overrides, where=given)
    return resolve(default_values(data=given), overrides=overrides, where="command line")
