"""Preprocessing equals that of transformers (PIL) and torchvision (Pillow images) bit by bit."""

import json

import numpy as np
import pytest
from PIL import Image

from export.runtime.errors import BundleError, DataError
from export.runtime.preprocess import Preprocessing
from tests.lazy import lazy_imports

with lazy_imports():
    from torchvision import transforms
    from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
    from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
    from transformers.models.efficientnet.image_processing_pil_efficientnet import (
        EfficientNetImageProcessorPil,
    )
    from transformers.models.levit.image_processing_pil_levit import LevitImageProcessorPil
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import (
        MobileNetV2ImageProcessorPil,
    )
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

# Width and height: even, odd, tall, wide, exact, tiny, and one pixel off.
SIZES = [(50, 50), (97, 61), (33, 128), (201, 40), (48, 48), (1, 1), (3, 2), (49, 48), (47, 71)]

PROCESSORS = {
    "clip": lambda: CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=48),
    "clip odd crop": lambda: CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=45),
    "clip oblong crop": lambda: CLIPImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 31, "width": 44}
    ),
    "clip crop beyond": lambda: CLIPImageProcessorPil(size={"shortest_edge": 37}, crop_size=48),
    "clip square": lambda: CLIPImageProcessorPil(
        size={"height": 48, "width": 48}, do_center_crop=False, resample=2
    ),
    "clip oblong": lambda: CLIPImageProcessorPil(
        size={"height": 30, "width": 52}, do_center_crop=False
    ),
    "clip square and crop": lambda: CLIPImageProcessorPil(
        size={"height": 51, "width": 51}, crop_size={"height": 48, "width": 40}
    ),
    "clip no resize": lambda: CLIPImageProcessorPil(do_resize=False, crop_size=45),
    "clip no scaling": lambda: CLIPImageProcessorPil(
        size={"shortest_edge": 48}, crop_size=48, do_rescale=False, image_mean=[120.0] * 3
    ),
    "clip no normalisation": lambda: CLIPImageProcessorPil(
        size={"shortest_edge": 48}, crop_size=48, do_normalize=False
    ),
    "siglip": lambda: SiglipImageProcessorPil(size={"height": 48, "width": 48}),
    "vit": lambda: ViTImageProcessorPil(size={"height": 48, "width": 48}),
    "vit nearest": lambda: ViTImageProcessorPil(size={"height": 48, "width": 48}, resample=0),
    "vit lanczos": lambda: ViTImageProcessorPil(size={"height": 48, "width": 48}, resample=1),
    "vit box": lambda: ViTImageProcessorPil(size={"height": 48, "width": 48}, resample=4),
    "vit hamming": lambda: ViTImageProcessorPil(size={"height": 48, "width": 48}, resample=5),
    "vit odd factor": lambda: ViTImageProcessorPil(
        size={"height": 48, "width": 48}, rescale_factor=1 / 127.5, image_mean=[1.0, 0.9, 0.7]
    ),
    "deit": lambda: DeiTImageProcessorPil(
        size={"height": 55, "width": 55}, crop_size={"height": 48, "width": 48}
    ),
    "beit": lambda: BeitImageProcessorPil(size={"height": 48, "width": 48}),
    "levit": lambda: LevitImageProcessorPil(size={"shortest_edge": 49}, crop_size=49),
    "convnext": lambda: ConvNextImageProcessorPil(size={"shortest_edge": 48}),
    "convnext large": lambda: ConvNextImageProcessorPil(size={"shortest_edge": 384}),
    "mobilenet v2": lambda: MobileNetV2ImageProcessorPil(size={"shortest_edge": 50}, crop_size=48),
    "align": lambda: EfficientNetImageProcessorPil(
        size={"height": 50, "width": 50}, do_center_crop=True, crop_size=43, include_top=False
    ),
}


def picture(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", SIZES)
def test_equal_to_transformers_to_the_bit(name, size):
    processor = PROCESSORS[name]()
    image = picture(*size)
    preprocessing = Preprocessing.from_processor(processor.to_dict())
    expected = processor(image, return_tensors="np")["pixel_values"]
    result = preprocessing.normalise(preprocessing.pixels(image)[None])
    assert result.dtype == np.float32
    assert result.shape[2:] == preprocessing.size
    np.testing.assert_array_equal(result, expected)


def test_a_batch_is_its_pictures():
    preprocessing = Preprocessing.from_processor(PROCESSORS["clip"]().to_dict())
    pixels = np.stack([preprocessing.pixels(picture(*size)) for size in SIZES])
    one_by_one = [preprocessing.normalise(row[None])[0] for row in pixels]
    np.testing.assert_array_equal(preprocessing.normalise(pixels), np.stack(one_by_one))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("resize_to", "crop"), [(48, (48, 48)), (48, (45, 31)), (37, (48, 40))])
def test_equal_to_torchvision_on_pillow_images(size, resize_to, crop):
    expected = transforms.Compose(
        [
            transforms.Resize(resize_to, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(crop),
        ]
    )
    preprocessing = Preprocessing(
        size=crop,
        resize="shortest",
        resize_to=resize_to,
        crop=True,
        crop_offset="round",
        resample="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    image = picture(*size)
    np.testing.assert_array_equal(preprocessing.pixels(image), np.asarray(expected(image)))


def test_a_box_over_everything_is_the_square():
    square = Preprocessing.from_processor(PROCESSORS["siglip"]().to_dict())
    image = picture(97, 61)
    np.testing.assert_array_equal(
        square.resize_box(image, (0, 0, 97, 61)), np.asarray(square.pixels(image))
    )


def test_a_box_of_one_colour_gives_that_colour():
    image = Image.new("RGB", (40, 30), "white")
    image.paste((10, 20, 30), (10, 0, 30, 30))
    clip = Preprocessing.from_processor(PROCESSORS["clip oblong crop"]().to_dict())
    result = clip.resize_box(image, (14.5, 3.0, 25.5, 29.0))
    assert result.shape == (31, 44, 3)
    assert (result == (10, 20, 30)).all()


def test_json_round_trip():
    for processor in (make() for make in PROCESSORS.values()):
        preprocessing = Preprocessing.from_processor(processor.to_dict())
        text = json.dumps(preprocessing.to_dict())
        assert Preprocessing.from_dict(json.loads(text)) == preprocessing


def plain(**changes: object) -> dict[str, object]:
    return {**Preprocessing.from_processor(PROCESSORS["clip"]().to_dict()).to_dict(), **changes}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda: plain(colour="red"), "'colour' is unknown"),
        (lambda: {"size": [3, 3]}, "'resize' is missing"),
        (list, "expected an object"),
        (lambda: plain(size=[48]), r"preprocessing\.size: expected a list of 2"),
        (lambda: plain(size=[48, 0]), r"size: expected a whole number of at least 1, found 0"),
        (lambda: plain(size=[True, 48]), r"size: expected a whole number"),
        (lambda: plain(resize="longest"), "expected shortest or square or none, found 'longest'"),
        (lambda: plain(resize_to=None), "'shortest' needs resize_to"),
        (lambda: plain(crop=False), "'shortest' needs resize_to and crop"),
        (lambda: plain(resize="square", crop=False), "expected null, found 48"),
        (lambda: plain(resize="none"), "expected null, found 48"),
        (lambda: plain(crop=1), "crop: expected true or false, found 1"),
        (lambda: plain(resample=3), "resample: expected nearest or"),
        (lambda: plain(mean=[0.5, 0.5]), "mean: expected a list of 3"),
        (lambda: plain(mean=[0.5, 0.5, float("nan")]), "mean: expected a number, found nan"),
        (lambda: plain(std=[0.5, 0.5, 0]), "std: expected a number above 0, found 0"),
        (lambda: plain(rescale="1/255"), "rescale: expected a number above 0, found '1/255'"),
    ],
)
def test_invalid_values_are_refused_by_field(values, message):
    with pytest.raises(BundleError, match=message) as caught:
        Preprocessing.from_dict(values())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_processor_type": "LlavaImageProcessor"}, "image_processor_type: found Llava"),
        ({"do_pad": True}, "do_pad: found True"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"include_top": True}, "include_top"),
        ({"size": {"shortest_edge": 48}, "do_center_crop": False}, "pictures of one size"),
        ({"size": {"shortest_edge": 48, "longest_edge": 64}}, "size: found"),
        ({"size": {"max_height": 48, "max_width": 64}}, "size: found"),
        ({"size": 48}, "size: found 48"),
        (
            {"size": {"height": 50, "width": 60}},
            "expected a square size, since do_center_crop is on",
        ),
        ({"crop_size": None}, "crop_size: found None"),
        ({"resample": 9}, "resample: found 9"),
        ({"image_mean": None}, "image_mean: found None"),
    ],
)
def test_a_processor_that_cannot_be_expressed_is_refused(changes, message):
    values = {**PROCESSORS["clip"]().to_dict(), **changes}
    with pytest.raises(BundleError, match=message) as caught:
        Preprocessing.from_processor(values)
    assert "\n" not in str(caught.value)


def test_a_picture_of_another_size_without_resize_is_refused():
    values = plain(resize="none", resize_to=None, crop=False)
    preprocessing = Preprocessing.from_dict(values)
    assert preprocessing.pixels(picture(48, 48)).shape == (48, 48, 3)
    with pytest.raises(DataError, match="50 x 48 pixels, but this model takes only 48 x 48"):
        preprocessing.pixels(picture(50, 48))


def test_a_picture_too_narrow_to_resize_is_refused():
    preprocessing = Preprocessing.from_dict(plain(size=[224, 224], resize_to=224))
    with pytest.raises(DataError, match="1 x 20000 pixels, too narrow"):
        preprocessing.pixels(Image.new("RGB", (1, 20000)))


def test_normalise_takes_only_uint8():
    preprocessing = Preprocessing.from_dict(plain())
    with pytest.raises(ValueError, match="expected uint8"):
        preprocessing.normalise(np.zeros((1, 48, 48, 3), np.float32))
