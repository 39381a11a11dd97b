import base64
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from distill.data.sample import open_image
from distill.data.tables.base64_lines import decode_field, open_base64
from export.runtime.errors import DataError


def png(colour: tuple[int, int, int]) -> bytes:
    """Return a picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(buffer, "PNG")
    return buffer.getvalue()


RED, GREEN = png((255, 0, 0)), png((0, 255, 0))


def write(path: Path, *rows: tuple[str, bytes]) -> Path:
    path.write_bytes(b"".join(text.encode() + b"\t" + field + b"\n" for text, field in rows))
    return path


def test_text_and_picture_of_each_line(tmp_path: Path) -> None:
    lines = write(tmp_path / "t.tsv", ("red", base64.b64encode(RED)), ("", base64.b64encode(GREEN)))
    source = open_base64(lines)
    assert [source[0].captions, source[1].captions] == [("red",), ()]
    assert [open_image(source[n]).getpixel((0, 0)) for n in (0, 1)] == [(255, 0, 0), (0, 255, 0)]
    assert source.rows == 2
    assert source.skipped == ()


def test_lines_with_the_same_picture_are_one_sample(tmp_path: Path) -> None:
    field = base64.b64encode(RED)
    source = open_base64(write(tmp_path / "t.tsv", ("red", field), ("a rose", field)))
    assert [sample.captions for sample in (source[n] for n in range(len(source)))] == [
        ("red", "a rose")
    ]


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("length", [250, 251, 252])
def test_both_alphabets_with_and_without_padding(encode, padded: bool, length: int) -> None:
    data = bytes(range(255, 255 - length, -1))
    field = encode(data)
    assert decode_field(field if padded else field.rstrip(b"="), name="x") == data


@pytest.mark.parametrize("field", [b"Zm9v!", b"Zm9vY", b"Zm9v Zm9v", b"Zm=9v", b"Zm9v\xff"])
def test_what_is_not_base64(field: bytes) -> None:
    with pytest.raises(DataError, match="x: its picture is not base64"):
        decode_field(field, name="x")


def test_a_file_whose_content_has_moved_is_refused(tmp_path: Path) -> None:
    red, green = base64.b64encode(RED), base64.b64encode(GREEN)
    assert len(red) == len(green)
    source = open_base64(write(tmp_path / "t.tsv", ("red", red), ("green", green)))
    write(tmp_path / "t.tsv", ("red", green), ("green", red))
    os.utime(tmp_path / "t.tsv", (1, 1))
    with pytest.raises(DataError, match=r"t\.tsv:1: the file has changed since it was opened"):
        open_image(source[0])


def test_a_file_that_was_copied_over_itself_is_still_read(tmp_path: Path) -> None:
    source = open_base64(write(tmp_path / "t.tsv", ("red", base64.b64encode(RED))))
    os.utime(tmp_path / "t.tsv", (1, 1))
    assert open_image(source[0]).getpixel((0, 0)) == (255, 0, 0)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    source = open_base64(write(tmp_path / "t.tsv", ("red", base64.b64encode(RED))))
    (tmp_path / "t.tsv").unlink()
    with pytest.raises(DataError, match=r"t\.tsv:1: it cannot be read: No such file"):
        open_image(source[0])
