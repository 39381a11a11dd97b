"""Opening sources by the rows of a recipe."""

from pathlib import Path

from distill.data.open import open_source, preview_source, unrendered
from distill.data.sample import open_image
from distill.recipe.sources import FolderSection, ScenesSection, TableSection


def test_a_table_is_opened_with_its_columns(write_pictures, write_csv, tmp_path):
    write_pictures(["a.jpg"], folder="elsewhere")
    table = write_csv([["file", "title", "kind"], ["a.jpg", "x", "cat"]])
    config = TableSection(
        path=str(table),
        image_column="file",
        caption_column="title",
        label_column="kind",
        image_root=str(tmp_path / "elsewhere"),
    )
    (sample,) = open_source(config, output=tmp_path / "run")
    assert (sample.key, sample.captions, sample.label) == ("a.jpg", ("x",), "cat")
    assert not (tmp_path / "run").exists()


def test_a_folder_is_opened_with_its_templates(write_pictures, tmp_path):
    write_pictures(["big_cat/a.jpg"])
    config = FolderSection(path=str(tmp_path), templates=("this is a {}",))
    (sample,) = open_source(config, output=tmp_path / "run")
    assert sample.captions == ("this is a big cat",)


def test_scenes_are_rendered_into_the_run_folder_by_settings(tmp_path):
    few = ScenesSection(count=3, seed=1, image_size=32)
    sources = [
        open_source(config, output=tmp_path)
        for config in (few, few.model_copy(update={"split": "held_out", "captioned": 1}))
    ]
    assert [len(source) for source in sources] == [3, 3]
    assert all(source.skipped == () for source in sources)
    assert all(Path(source.name).is_relative_to(tmp_path) for source in sources)
    assert sources[0].name != sources[1].name
    assert [len(sample.captions) > 0 for sample in sources[1]] == [True, False, False]
    assert all(sample.label for source in sources for sample in source)
    assert open_image(sources[0][0]).size == (32, 32)
    elsewhere = few.model_copy(update={"path": str(tmp_path / "mine")})
    assert Path(open_source(elsewhere, output=tmp_path / "run").name).parent == tmp_path / "mine"
    assert not (tmp_path / "run").exists()


def test_a_preview_writes_nothing_until_the_scenes_are_rendered(tmp_path: Path) -> None:
    row = ScenesSection(count=3, seed=1, image_size=16)
    folder = unrendered(row, output=tmp_path)
    preview = preview_source(row, output=tmp_path)
    assert list(tmp_path.iterdir()) == []
    rendered = open_source(row, output=tmp_path)
    assert preview.name == rendered.name
    assert Path(preview.name).parent == folder
    assert unrendered(row, output=tmp_path) is None
    assert type(preview_source(row, output=tmp_path)) is type(rendered)


def test_pictures_that_exist_are_never_rendered(tmp_path: Path) -> None:
    assert unrendered(FolderSection(path="x"), output=tmp_path) is None
