"""Scenes as a source: what a preview draws is what rendering writes."""

from pathlib import Path

import numpy as np
import pytest

from distill.data.sample import open_image
from distill.data.scene_source import open_scenes, preview_scenes


@pytest.mark.parametrize("captioned", [None, 2])
def test_a_preview_shows_what_rendering_would_write(tmp_path: Path, captioned: int | None) -> None:
    folder = tmp_path / "scenes"
    settings = {"count": 70, "seed": 1, "image_size": 16, "split": "train", "captioned": captioned}
    preview = preview_scenes(folder, **settings)
    assert not folder.exists()
    rendered = open_scenes(folder, **settings)
    assert (preview.name, preview.rows) == (rendered.name, rendered.rows)
    assert len(preview) == len(rendered)
    for number in range(64):
        mine, theirs = preview[number], rendered[number]
        assert (mine.key, mine.captions, mine.label) == (theirs.key, theirs.captions, theirs.label)
        assert np.array_equal(open_image(mine), open_image(theirs))
    # After 64 scenes they repeat, but each keeps its own key.
    assert preview[64].key == rendered[64].key
    with pytest.raises(IndexError):
        preview[70]
