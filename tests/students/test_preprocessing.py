"""A student's image processor does the same as timm's own evaluation."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.lazy import lazy_imports

with lazy_imports():
    import timm.data
    import torch
    from torch import nn
    from transformers import AutoImageProcessor

    from students.backbone import image_processor_for
    from students.build import build_towers


def configured(**data: Any) -> nn.Module:
    """Return a backbone of which only the data configuration matters."""
    backbone = nn.Identity()
    backbone.pretrained_cfg = {
        "input_size": (3, 96, 96),
        "interpolation": "bicubic",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.4),
        "crop_pct": 0.875,
        "crop_mode": "center",
        **data,
    }
    return backbone


def picture(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, size=(height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "data",
    [
        {"crop_pct": 0.8},
        {"interpolation": "bilinear", "crop_pct": 0.8, "input_size": (3, 64, 64)},
        {"crop_mode": "squash", "crop_pct": 1.0},
        {"crop_mode": "squash", "crop_pct": 0.9, "input_size": (3, 90, 90)},
        {"crop_mode": "squash", "crop_pct": 1.0, "input_size": (3, 96, 64)},
    ],
)
def test_pictures_are_prepared_as_timm_does(data: dict[str, Any]) -> None:
    backbone = configured(**data)
    config = timm.data.resolve_model_data_config(backbone)
    expected = timm.data.create_transform(**config, is_training=False)
    processor = image_processor_for(backbone, None)
    # These sizes leave even margins. At odd ones the two libraries' centres differ by a pixel.
    for image in (picture(240, 160), picture(160, 160), picture(160, 240)):
        found = processor(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(found, expected(image), rtol=0, atol=1e-5)


def test_a_whole_picture_stays_whole() -> None:
    backbone = configured(crop_mode="border", crop_pct=0.9)
    processor = image_processor_for(backbone, None)
    assert (processor.size["height"], processor.size["width"]) == (96, 96)
    assert not processor.do_center_crop


def test_the_size_of_the_recipe_replaces_that_of_timm() -> None:
    processor = image_processor_for(configured(), 48)
    assert processor.size["shortest_edge"] == 54  # floor(48 / 0.875)
    assert (processor.crop_size["height"], processor.crop_size["width"]) == (48, 48)


def test_the_numbers_of_a_backbone_are_used(text: dict[str, Any]) -> None:
    # From the model card of mobilenetv4_conv_small.e2400_r224_in1k and timm's ViT of augreg.
    numbers = {
        "mobilenetv4_conv_small": (256, 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        "vit_tiny_patch16_224": (248, 224, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    }
    for backbone, (shortest, side, mean, std) in numbers.items():
        image = {"backbone": backbone, "pretrained": False}
        processor = build_towers(image=image, text=None, width=8, logit_scale=10.0).image_processor
        assert processor.size["shortest_edge"] == shortest
        assert processor.crop_size["height"] == side
        assert (list(processor.image_mean), list(processor.image_std)) == (mean, std)


@pytest.mark.slow
def test_the_saved_processor_loads_without_torchvision(
    image: dict[str, Any], tmp_path: Path
) -> None:
    student = build_towers(image=image, text=None, width=8, logit_scale=10.0)
    student.save(tmp_path)
    picture(80, 72).save(tmp_path / "picture.png")
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from PIL import Image; import numpy as np; from transformers import AutoImageProcessor\n"
        "processor = AutoImageProcessor.from_pretrained('.', backend='pil')\n"
        "pixels = processor(Image.open('picture.png'), return_tensors='np')['pixel_values']\n"
        "np.save('pixels.npy', pixels)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    expected = student.image_processor(picture(80, 72), return_tensors="np")["pixel_values"]
    assert np.array_equal(np.load(tmp_path / "pixels.npy"), expected)


def test_the_saved_processor_is_pillows(image: dict[str, Any], tmp_path: Path) -> None:
    student = build_towers(image=image, text=None, width=8, logit_scale=10.0)
    student.save(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert loaded.to_dict() == student.image_processor.to_dict()
