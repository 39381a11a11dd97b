from pathlib import Path

import pytest

from distill.data.sample import Skip, open_image
from distill.data.tables.table import open_table
from export.runtime.errors import DataError


def failure(path: Path, **arguments) -> str:
    """Return the message of a table that cannot be opened: one line that names the file."""
    with pytest.raises(DataError) as caught:
        open_table(path, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert "\0" not in message
    assert str(path) in message or path.name in message
    return message


def test_several_rows_of_one_picture_are_one_sample(write_pictures, write_csv):
    write_pictures(["a.jpg", "b.jpg"], folder="Images")
    table = write_csv(
        [
            ["image", "caption"],
            ["a.jpg", "A child in a pink dress , climbing stairs ."],
            ["b.jpg", 'A sign reads "Stop, now" .'],
            ["a.jpg", "A girl going into a wooden building ."],
            ["a.jpg", "A child in a pink dress , climbing stairs ."],
        ],
        name="captions.txt",
    )
    source = open_table(table)
    assert len(source) == 2
    assert source.rows == 4
    assert source.skipped == ()
    assert source[0].key == "a.jpg"
    assert source[0].captions == (
        "A child in a pink dress , climbing stairs .",
        "A girl going into a wooden building .",
    )
    assert source[1].captions == ('A sign reads "Stop, now" .',)
    assert source[0].label is None
    assert open_image(source[1]).getpixel((0, 0)) == (1, 100, 200)


def test_a_source_is_a_sequence(write_pictures, write_csv):
    write_pictures(["a.jpg", "b.jpg"])
    source = open_table(write_csv([["image", "caption"], ["a.jpg", "x"], ["b.jpg", "y"]]))
    assert [sample.key for sample in source] == ["a.jpg", "b.jpg"]
    assert source[-1].key == "b.jpg"
    with pytest.raises(IndexError):
        source[2]


@pytest.mark.parametrize(
    "word", ["None", "NA", "null", "nan", "", " 7 ", "犬と猫", "🐕 كلب", "x" * 100_000]
)
def test_nothing_but_an_empty_caption_counts_as_missing(write_pictures, write_csv, word):
    write_pictures(["a.jpg"])
    source = open_table(write_csv([["image", "caption"], ["a.jpg", word]]))
    assert source[0].captions == ((word.strip(),) if word else ())


def test_names_with_letters_of_all_kinds(write_pictures, write_csv):
    write_pictures(["смех/ä b,c.jpg"])
    source = open_table(write_csv([["image", "caption"], ["смех/ä b,c.jpg", "x"]]))
    assert source[0].key == "смех/ä b,c.jpg"
    assert open_image(source[0]).size == (4, 3)


def test_two_spellings_of_one_picture_are_one_sample(write_pictures, write_csv, tmp_path):
    write_pictures(["a.jpg"], folder="images")
    rows = [["image", "caption"], ["a.jpg", "one"], ["./a.jpg", "two"], ["images//a.jpg", "three"]]
    source = open_table(write_csv([*rows, [str(tmp_path / "images/a.jpg"), "four"]]))
    assert len(source) == 1
    assert source[0].key == "a.jpg"
    assert source[0].captions == ("one", "two", "three", "four")


@pytest.mark.parametrize("folder", [".", "images", "Images"])
def test_pictures_are_found_next_to_the_table(write_pictures, write_csv, tmp_path, folder):
    write_pictures(["deep/a.jpg"], folder=folder)
    source = open_table(write_csv([["image", "caption"], ["deep/a.jpg", "x"]]))
    assert source[0].image == tmp_path / folder / "deep/a.jpg"


def test_the_tables_folder_comes_before_its_images_folder(write_pictures, write_csv, tmp_path):
    write_pictures(["a.jpg"], folder="images")
    write_pictures(["a.jpg"])
    source = open_table(write_csv([["image", "caption"], ["a.jpg", "x"]]))
    assert source[0].image == tmp_path / "a.jpg"


def test_an_image_root_is_the_only_place_to_look(write_pictures, write_csv, tmp_path):
    write_pictures(["a.jpg", "b.jpg"])
    write_pictures(["a.jpg"], folder="elsewhere")
    table = write_csv([["image", "caption"], ["a.jpg", "x"], ["b.jpg", "y"]])
    source = open_table(table, image_root=tmp_path / "elsewhere")
    assert [sample.key for sample in source] == ["a.jpg"]
    assert source[0].image == tmp_path / "elsewhere/a.jpg"
    assert len(source.skipped) == 1
    assert "image_root" in failure(table, image_root=tmp_path / "nowhere")


def test_columns_may_have_other_names(write_pictures, write_csv):
    write_pictures(["a.jpg", "b.jpg"])
    rows = [["id", "title", "file", "kind"], ["1", "x", "a.jpg", "cat"], ["2", "y", "b.jpg", ""]]
    table = write_csv(rows)
    source = open_table(table, image_column="file", caption_column="title", label_column="kind")
    assert [sample.captions for sample in source] == [("x",), ("y",)]
    assert [sample.label for sample in source] == ["cat", None]
    assert open_table(table, image_column="file", caption_column=None)[0].captions == ()


def test_a_label_column_is_read_if_there_is_one(write_pictures, write_csv):
    write_pictures(["a.jpg", "b.jpg"])
    rows = [["image", "caption", "label"], ["a.jpg", "x", "red dog"], ["b.jpg", "", "red dog"]]
    source = open_table(write_csv(rows))
    assert [sample.label for sample in source] == ["red dog", "red dog"]
    assert source[1].captions == ()
    assert open_table(write_csv(rows), label_column=None)[0].label is None
    assert "'lable'" in failure(write_csv(rows), label_column="lable")


def test_a_row_whose_label_contradicts_an_earlier_one_is_skipped(write_pictures, write_csv):
    write_pictures(["a.jpg"])
    rows = [["image", "caption", "label"], ["a.jpg", "x", "dog"], ["a.jpg", "y", "cat"]]
    source = open_table(write_csv(rows))
    assert source[0].captions == ("x",)
    assert source[0].label == "dog"
    assert source.skipped[0].kind == "row"
    assert "'cat'" in source.skipped[0].reason


def test_a_single_column_is_pictures_without_captions(write_pictures, write_text):
    write_pictures(["a.jpg"])
    source = open_table(write_text("image\na.jpg\n\n"), caption_column=None)
    assert source[0].captions == ()
    assert source.rows == 1


def test_tsv_has_no_quotes(write_pictures, write_text):
    write_pictures(["a.jpg", "b.jpg"])
    text = 'image\tcaption\na.jpg\t"Stop, now\nb.jpg\the said ""hi"\n'
    for name in ("captions.tsv", "captions.txt"):
        source = open_table(write_text(text, name=name))
        assert source[0].captions == ('"Stop, now',)
        assert source[1].captions == ('he said ""hi"',)


def test_flickr30ks_table_is_separated_by_bars(write_pictures, write_text):
    write_pictures(["a.jpg", "b.jpg"])
    text = (
        "image_name| comment_number| comment\n"
        'a.jpg| 0| Two guys , "hi" .\na.jpg| 1   A dog runs .\nb.jpg| 4| A cat .\n'
    )
    columns = {"image_column": "image_name", "caption_column": "comment"}
    source = open_table(write_text(text), **columns)
    assert [sample.captions for sample in source] == [('Two guys , "hi" .',), ("A cat .",)]
    assert [skip.reason for skip in source.skipped] == ["2 fields, but the header has 3"]


def test_bars_in_a_caption_do_not_separate_fields(write_pictures, write_text):
    write_pictures(["a.jpg"])
    for text, named in (
        ("image,caption|s\na.jpg,x|y\n", {"caption_column": "caption|s"}),
        ("a.jpg,x|y\n", {"columns": ("image", "caption")}),
    ):
        source = open_table(write_text(text), **named)
        assert source[0].captions == ("x|y",)


@pytest.mark.parametrize(
    ("text", "swallowed"),
    [
        ('a.jpg,"x\nb.jpg,y\nc.jpg,z"\n', ["'b.jpg'", "'c.jpg'"]),
        ('a.jpg,"a man\nb.jpg,a dog\nc.jpg,"" hi"\n', ["'b.jpg'", "'c.jpg'"]),
    ],
)
def test_rows_that_a_stray_quote_has_swallowed(write_pictures, write_text, text, swallowed):
    write_pictures(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    source = open_table(write_text(f"image,caption\n{text}d.jpg,q\n"))
    assert [sample.captions for sample in source] == [("q",)]
    # Each of the three rows is counted.
    assert source.rows == 4
    *rows, own = source.skipped
    assert [skip.where.rpartition(":")[2] for skip in source.skipped] == ["2", "2", "2"]
    assert all(name in skip.reason for name, skip in zip(swallowed, rows, strict=True))
    assert own.reason == "its quotes contain other rows"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks_of_every_system(write_pictures, write_text, end, mark):
    write_pictures(["a.jpg", "b.jpg"])
    lines = ["image,caption", 'a.jpg,"one, two"', "b.jpg,three", ""]
    source = open_table(write_text(mark + end.join(lines)))
    assert [sample.captions for sample in source] == [("one, two",), ("three",)]


def test_a_caption_of_several_lines_keeps_the_count_of_lines(write_pictures, write_text):
    write_pictures(["a.jpg", "b.jpg"])
    table = write_text('image,caption\na.jpg,"one\n\ntwo"\nb.jpg,x,y\n')
    source = open_table(table)
    assert source[0].captions == ("one\n\ntwo",)
    assert source.skipped[0].where == f"{table}:5"


def test_spaces_around_fields_do_not_matter(write_pictures, write_text):
    write_pictures(["a.jpg"])
    source = open_table(write_text('image , caption\na.jpg , "one, two"\na.jpg, three \n'))
    assert source[0].captions == ("one, two", "three")


def test_rows_with_a_wrong_number_of_fields_are_skipped_with_their_line(write_pictures, write_text):
    write_pictures(["a.jpg", "b.jpg", "c.jpg"])
    table = write_text("image,caption\na.jpg,one, two\nb.jpg,fine\n\nc.jpg\n,nameless\n")
    source = open_table(table)
    assert [sample.key for sample in source] == ["b.jpg"]
    assert source.rows == 4
    assert [skip.where for skip in source.skipped] == [f"{table}:{line}" for line in (2, 5, 6)]
    assert {skip.kind for skip in source.skipped} == {"row"}
    assert source.skipped[0].reason.startswith("3 fields, but the header has 2")


def test_a_missing_picture_is_skipped_once(write_pictures, write_csv, tmp_path):
    write_pictures(["a.jpg"], folder="images")
    rows = [["a.jpg", "x"], ["gone.jpg", "y"], ["gone.jpg", "z"], ["n" * 5000, "too long"]]
    source = open_table(write_csv([["image", "caption"], *rows]))
    assert [sample.key for sample in source] == ["a.jpg"]
    folders = f"{tmp_path}, {tmp_path / 'images'}"
    assert source.skipped[0] == Skip(
        f"{tmp_path / 'captions.csv'}:3", f"there is no picture 'gone.jpg' in {folders}"
    )
    assert len(source.skipped) == 2
    assert len(source.skipped[1].reason) < 300


def test_no_picture_at_all(write_csv):
    message = failure(write_csv([["image", "caption"], ["a.jpg", "x"], ["b.jpg", "y"]]))
    assert "2 of its 2 pictures are missing" in message
    assert "'a.jpg'" in message
    assert "image_root" in message


def test_no_row_at_all(write_text):
    message = failure(write_text("image,caption\na.jpg,x,y\n"))
    assert "no row can be used" in message
    assert "captions.csv:2" in message


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"", ["empty", "name the columns"]),
        (b"\n \n", ["empty"]),
        (b"\xef\xbb\xbf", ["empty"]),
        (b"image,caption\n", ["header", "no rows"]),
        (b"image,caption\n\n\n", ["header", "no rows"]),
        (b"image,text\na.jpg,x\n", ["'caption'", "'image', 'text'", "caption_column"]),
        (b"image,Captoin\na.jpg,x\n", ["'caption'", "the nearest is 'Captoin'"]),
        (b"a.jpg,a dog\nb.jpg,a cat\n", ["'image'", "'a.jpg', 'a dog'", "image_column"]),
        (b"image,image,caption\na.jpg,b.jpg,x\n", ["2 columns", "'image'"]),
        (b'image,caption\na.jpg,x\nb.jpg,"no end\nc.jpg,y\n', ["line 3", "never closed"]),
        (b'image,caption\na.jpg,"x" y\n', ["line 2", "after a closing quote"]),
        (b'image,caption\na.jpg,"x\nb.jpg,y\nc.jpg,"z, z"\n', ["line 2", "closing quote"]),
        (b'image,caption\na.jpg,"' + b"x" * 200_000, ["line 2", "131072 characters"]),
        (b"image,caption\na.jpg,x\0y\n", ["line 2", "NUL", "UTF-8"]),
        (b"image,caption\na.jpg,caf\xe9\n", ["line 2", "character 10", "0xe9", "UTF-8"]),
        ("image,caption\na.jpg,x\n".encode("utf-16"), ["line 1", "UTF-8"]),
        (b'"image\n,caption\n', ["line 1", "never closed"]),
    ],
)
def test_a_table_that_cannot_be_read_gives_one_line(write_text, content, fragments):
    message = failure(write_text(content))
    for fragment in fragments:
        assert fragment in message


def test_a_column_of_a_wide_table_is_missing(write_text):
    header = ",".join(f"column {number}" for number in range(500))
    message = failure(write_text(header + "\n"))
    assert "and 488 more" in message
    assert len(message) < 600


def test_what_is_not_a_table(tmp_path, write_text):
    assert "nothing" in failure(tmp_path / "none.csv")
    assert "a folder" in failure(tmp_path)
    assert ".parquet" in failure(write_text("image,caption\n", name="captions.xlsx"))


def test_a_table_without_a_header_is_told_what_to_do(write_text):
    for message in (failure(write_text("a.jpg,x\n")), failure(write_text("image,x\na.jpg,x\n"))):
        assert "if the first line is not a header, name the columns with columns: [...]" in message
