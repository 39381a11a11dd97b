import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.data.sample import (
    Extras,
    Sample,
    Skip,
    Subset,
    check_skips,
    check_source,
    extras_of,
    limit_pixels,
    open_image,
    split_by_hash,
)
from distill.data.tables.table import open_table
from export.runtime.errors import DataError


class Numbers:
    """A source whose samples have only keys."""

    def __init__(self, count: int, *, prefix: str = "") -> None:
        self.name = "numbers"
        self.skipped: tuple[Skip, ...] = ()
        self.rows = count
        self._keys = [f"{prefix}{number}.jpg" for number in range(count)]

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self._keys[index], b"", (), None)


def keys(source) -> list[str]:
    return [source[index].key for index in range(len(source))]


def shown(image: Image.Image, **arguments) -> np.ndarray:
    """Return the pixels that a picture shows after it was saved as PNG."""
    file = io.BytesIO()
    image.save(file, "PNG", **arguments)
    picture = open_image(Sample("key", file.getvalue(), (), None))
    assert picture.mode == "RGB"
    return np.asarray(picture)


def test_palette():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert shown(image).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    # The second colour is declared transparent: white shows through.
    assert shown(image, transparency=1).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_grey_and_black_and_white():
    assert shown(Image.new("L", (1, 1), 77)).tolist() == [[[77, 77, 77]]]
    assert shown(Image.new("1", (1, 1), 1)).tolist() == [[[255, 255, 255]]]


def test_alpha_is_composited_over_white():
    image = Image.new("RGBA", (3, 1), (100, 0, 200, 255))
    image.putpixel((1, 0), (100, 0, 200, 0))
    image.putpixel((2, 0), (100, 0, 200, 51))
    # 51 / 255 is a fifth: 0.2 * (100, 0, 200) + 0.8 * 255.
    expected = [[[100, 0, 200], [255, 255, 255], [224, 204, 244]]]
    assert shown(image).tolist() == expected
    # 0.2 * 55 + 0.8 * 255
    assert shown(Image.new("LA", (1, 1), (55, 51))).tolist() == [[[215, 215, 215]]]


def test_sixteen_bits_of_grey_are_scaled():
    # 257 * n is the n of 8 bits.
    values = np.array([[0, 25_700, 51_400, 65_535]], dtype=np.uint16)
    pixels = shown(Image.fromarray(values))
    assert pixels[0, :, 0].tolist() == [0, 100, 200, 255]
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize(("form", "tolerance"), [("TIFF", 0), ("JPEG", 4)])
def test_cmyk(form, tolerance):
    file = io.BytesIO()
    # No cyan, all magenta and yellow, no black: red.
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(file, form)
    pixels = np.asarray(open_image(Sample("key", file.getvalue(), (), None)), dtype=int)
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels - [255, 0, 0]).max() <= tolerance


def test_exif_orientation_is_applied():
    # Orientation 6: the rows as stored are the columns as shown, from the right.
    image = Image.new("RGB", (3, 2))
    for place in range(6):
        image.putpixel((place % 3, place // 3), (place * 10, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = shown(image, exif=exif)
    assert pixels[..., 0].tolist() == [[30, 0], [40, 10], [50, 20]]


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path):
    file = tmp_path / "bad.jpg"
    file.write_bytes(b"no picture")
    gone = tmp_path / "gone.jpg"
    samples = [Sample("a", file, (), None), Sample("b", gone, (), None), Sample("c", b"", (), None)]
    for sample, name in zip(samples, [str(file), str(gone), "c"], strict=True):
        with pytest.raises(DataError) as caught:
            open_image(sample)
        assert str(caught.value).startswith(f"{name}: ")
        assert "\n" not in str(caught.value)


def test_a_subset_is_a_source():
    subset = Subset(Numbers(10), [7, 3])
    assert keys(subset) == ["7.jpg", "3.jpg"]
    assert keys(Subset(subset, [1])) == ["3.jpg"]
    assert (subset.name, subset.rows, subset.skipped) == ("numbers", 10, ())
    assert [sample.key for sample in subset] == ["7.jpg", "3.jpg"]


def test_the_split_is_a_function_of_the_key_alone():
    kept, held_out = split_by_hash(Numbers(2000), share=0.05, at_most=2000)
    assert sorted(keys(kept) + keys(held_out)) == sorted(keys(Numbers(2000)))
    # 100 are expected, with a standard deviation of 10.
    assert 60 < len(held_out) < 140
    _, fewer = split_by_hash(Numbers(1000), share=0.05, at_most=2000)
    assert keys(fewer) == [key for key in keys(held_out) if int(key.removesuffix(".jpg")) < 1000]
    _, other = split_by_hash(Numbers(2000, prefix="x/"), share=0.05, at_most=2000)
    assert [key.removeprefix("x/") for key in keys(other)] != keys(held_out)


def test_the_split_has_a_limit():
    _, held_out = split_by_hash(Numbers(2000), share=0.05, at_most=2000)
    _, limited = split_by_hash(Numbers(2000), share=0.05, at_most=10)
    assert len(limited) == 10
    assert set(keys(limited)) < set(keys(held_out))


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_each_part_of_a_split_has_a_sample(count, share):
    kept, held_out = split_by_hash(Numbers(count), share=share, at_most=2000)
    assert len(kept) >= 1
    assert len(held_out) >= 1
    assert len(kept) + len(held_out) == count


def test_one_sample_cannot_be_split():
    with pytest.raises(DataError, match="numbers: 1 picture"):
        split_by_hash(Numbers(1), share=0.05, at_most=10)


def test_skips_up_to_the_limit_are_accepted():
    skips = [Skip("t.csv:3", "gone"), Skip("t.csv:9", "gone too")]
    check_skips("t.csv", [], 0, max_skipped=0.0)
    check_skips("t.csv", skips, 200, max_skipped=0.01)
    with pytest.raises(DataError) as caught:
        check_skips("t.csv", skips, 199, max_skipped=0.01)
    message = str(caught.value)
    for fragment in ("2 of 199", "t.csv:3", "gone", "data.max_skipped = 0.01"):
        assert fragment in message
    assert "\n" not in message


def test_rows_and_pictures_are_counted_separately(tmp_path: Path):
    # 20 pictures of 5 captions: one bad row is 1 % of the rows, one missing picture 5 % of them.
    rows = [f"{number}.jpg,caption {line}" for number in range(20) for line in range(5)]
    for number in range(20):
        (tmp_path / f"{number}.jpg").touch()
    table = tmp_path / "captions.csv"
    table.write_text("\n".join(["image,caption", *rows[:-1], "19.jpg,one, two"]) + "\n")
    source = open_table(table)
    check_source(source, max_skipped=0.01)
    with pytest.raises(DataError, match="1 of 100 rows"):
        check_source(Subset(source, [0]), max_skipped=0.009)
    (tmp_path / "7.jpg").unlink()
    with pytest.raises(DataError, match="1 of 20 pictures"):
        check_source(open_table(table), max_skipped=0.01)


def test_a_source_goes_to_other_processes(write_pictures, write_csv):
    write_pictures(["a.jpg", "b.jpg"])
    source = open_table(write_csv([["image", "caption"], ["a.jpg", "x"], ["b.jpg", "y"]]))
    kept, held_out = split_by_hash(source, share=0.5, at_most=1)
    for part in (kept, held_out):
        assert list(pickle.loads(pickle.dumps(part))) == list(part)


def test_parts_and_limits_hand_on_what_a_source_offers() -> None:
    class Offering(Numbers):
        extras = Extras(shard_lengths=np.array([3, 7]), class_names=("cat",), templates=("a {}",))

    source = Offering(10)
    assert extras_of(Numbers(10)) == Extras()
    limited = extras_of(limit_pixels(source, 5))
    assert limited is source.extras
    part = extras_of(limit_pixels(Subset(Subset(source, [1, 2, 3, 9]), [0, 2, 3]), 5))
    assert part.shard_lengths is not None
    assert part.shard_lengths.tolist() == [1, 2]
    assert (part.class_names, part.templates, part.whole) == (("cat",), ("a {}",), 10)
    # Samples out of the order of their tars do not make lanes.
    assert extras_of(Subset(source, [9, 1])).shard_lengths is None
