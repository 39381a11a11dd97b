"""Every picture is decoded to upright RGB, or refused in one line that says why."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from export.runtime.decode import decode
from export.runtime.errors import DataError

RED_LEFT = np.zeros((4, 6, 3), np.uint8)
RED_LEFT[:, :3, 0] = 255


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_path_bytes_image_and_array_give_the_same(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(RED_LEFT).save(path)
    for source in (path, str(path), path.read_bytes(), Image.open(path), RED_LEFT):
        image = decode(source)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), RED_LEFT)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, RED_LEFT),
        (2, RED_LEFT[:, ::-1]),
        (3, RED_LEFT[::-1, ::-1]),
        (4, RED_LEFT[::-1]),
        (5, RED_LEFT.transpose(1, 0, 2)),
        (6, np.rot90(RED_LEFT, -1)),
        (7, RED_LEFT[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90(RED_LEFT)),
    ],
)
def test_exif_orientation_is_applied(orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RED_LEFT), "PNG", exif=exif)
    np.testing.assert_array_equal(np.asarray(decode(data)), expected)


def test_damaged_exif_does_not_lose_the_picture():
    data = encoded(Image.fromarray(RED_LEFT), "JPEG", exif=b"Exif\x00\x00nonsense")
    assert decode(data).size == (6, 4)


def test_alpha_shows_white():
    pixels = np.full((1, 3, 4), (200, 100, 0, 0), np.uint8)
    pixels[0, :, 3] = (0, 255, 51)  # 51 / 255 is one fifth.
    result = np.asarray(decode(encoded(Image.fromarray(pixels, "RGBA"), "PNG")))
    np.testing.assert_array_equal(result[0, 0], (255, 255, 255))
    np.testing.assert_array_equal(result[0, 1], (200, 100, 0))
    np.testing.assert_allclose(result[0, 2], (244, 224, 204), atol=1)


def test_transparent_colour_of_a_palette_shows_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    for transparency in (0, b"\x00\xff"):
        data = encoded(image, "PNG", transparency=transparency)
        assert np.asarray(decode(data)).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_transparent_colour_of_rgb_and_grey_shows_white():
    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    data = encoded(rgb, "PNG", transparency=(1, 2, 3))
    assert np.asarray(decode(data)).tolist() == [[[255, 255, 255], [4, 5, 6]]]
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    data = encoded(grey, "PNG", transparency=9)
    assert np.asarray(decode(data)).tolist() == [[[7, 7, 7], [255, 255, 255]]]


def test_grey_bilevel_and_grey_with_alpha():
    assert decode(Image.new("L", (2, 2), 77)).getpixel((0, 0)) == (77, 77, 77)
    assert decode(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == (255, 255, 255)
    assert decode(Image.new("LA", (2, 2), (77, 0))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_cut_off(form):
    values = np.array([[0, 128, 257 * 100, 65535]], np.uint16)
    result = np.asarray(decode(encoded(Image.fromarray(values), form)))
    assert result[0, :, 0].tolist() == [0, 0, 100, 255]
    assert result.shape == (1, 4, 3)


def test_cmyk_jpeg():
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = decode(data).getpixel((4, 4))
    assert red > 240
    assert green < 15
    assert blue < 15


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).getpixel((1, 1)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a picture"),
        (b"hello, I am a text", "not a picture"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:700], "truncated"),
        (encoded(Image.effect_noise((64, 64), 50), "PNG")[:700], "cannot be read"),
    ],
)
def test_damaged_files_are_reported_in_one_line_with_their_name(tmp_path, content, reason):
    path = tmp_path / "broken picture.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        decode(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.png: there is no such picture"):
        decode(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match="a folder, expected a picture"):
        decode(tmp_path)


def test_decompression_bomb_is_refused():
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="cannot be read"):
        decode(data)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (np.zeros((3, 4, 4), np.uint8), r"uint8 of shape \[3, 4, 4\]"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (7, "found a int"),
        (Image.new("F", (2, 2)), "floating-point"),
        (Image.new("RGB", (0, 2)), "no pixels"),
    ],
)
def test_anything_but_a_picture_is_refused(source, found):
    with pytest.raises(DataError, match=found):
        decode(source)


def test_a_given_name_is_used():
    with pytest.raises(DataError, match=r"^photos/cat\.jpg: "):
        decode(b"", name="photos/cat.jpg")
