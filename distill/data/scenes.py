"""Scenes: procedural pictures of bright shapes on dark backgrounds, with captions and labels.

Scenes are rendered into a folder of PNGs and a ``captions.csv`` with the columns image, caption
and label, which is read like any other table. The class of a picture is a colour and a shape. Some
pairs of them are held out of all training, so a model that recognises these pairs has combined
them from their words.
"""

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from distill.basis.draws import draw_integers, draw_permutation
from distill.basis.files import write_whole
from distill.basis.progress import progress_bar
from export.runtime.errors import DataError

Split = Literal["train", "held_out", "all"]

COLOURS = {
    "red": (228, 38, 44),
    "orange": (250, 140, 20),
    "yellow": (245, 232, 50),
    "green": (48, 200, 62),
    "cyan": (60, 224, 232),
    "blue": (62, 88, 246),
    "pink": (250, 120, 200),
    "white": (242, 242, 240),
}
_BACKGROUNDS = {
    "black": (10, 10, 12),
    "grey": (52, 52, 54),
    "navy": (14, 20, 58),
    "brown": (56, 34, 18),
    "moss": (38, 46, 16),
}
# The smallest and largest radius in pixels, for a picture of 48 pixels.
_SIZES = {"small": (9.5, 12.5), "large": (15.0, 19.0)}
# An outline in units of the radius, and its fill: 255 paints and 0 cuts out.
_Outline = tuple[NDArray[np.float64], int]

CAPTIONS = (
    "{a_colour} {colour} {shape}",
    "a picture of one {colour} {shape}",
    "a {size} {colour} {shape}",
    "a drawing of a {size} {colour} {shape}",
    "{a_shape} {shape} in {colour}",
    "a {size} {shape} that is {colour}",
    "the {shape} is {colour}",
    "{a_colour} {colour} {shape} on a {background} background",
    "a {size} {colour} {shape} on {background}",
    "one {colour} {shape} in front of a {background} wall",
)
# For zero-shot classification; {} stands for the name of a class, such as "red circle".
PROMPTS = (
    "a picture of one {}",
    "a small {}",
    "a large {}",
    "a drawing of a small {}",
    "a drawing of a large {}",
    "one {} in front of a black wall",
    "a small {} on grey",
    "a large {} on navy",
)

# Each colour is held out once, and so is each shape but two; training sees all other pairs.
HELD_OUT = (
    "red star",
    "orange ring",
    "yellow heart",
    "green crescent",
    "cyan triangle",
    "blue circle",
    "pink arrow",
    "white cross",
)

_TILT = 18.0  # largest rotation in either direction, in degrees
_SHIFT = 4.0  # largest offset of the shape along each side, in pixels of a picture of 48
_OVERSAMPLING = 4
_SETTINGS_FILE = "scenes.json"
TABLE_FILE = "captions.csv"


@dataclass(frozen=True)
class Scene:
    """One picture with its caption and its class."""

    image: Image.Image
    caption: str
    label: str


@dataclass(frozen=True)
class _Settings:
    """What determines the content of a folder; ``design`` counts changes of this module."""

    count: int
    seed: int
    image_size: int
    split: Split
    captioned: int
    design: int = 1


def class_names(split: Split = "all") -> list[str]:
    """Return the classes of a split, such as "red circle", in a fixed order."""
    every = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    return [name for name in every if split == "all" or (name in HELD_OUT) == (split == "held_out")]


def render_scenes(
    folder: Path,
    *,
    count: int,
    seed: int,
    image_size: int = 48,
    split: Split = "train",
    captioned: int | None = None,
) -> Path:
    """Render ``count`` pictures into a folder and return its table.

    The same arguments give the same pictures, and a smaller ``count`` gives the first of them.
    Only the first ``captioned`` pictures have a caption (all by default); all have a label. Each
    file appears whole and the table comes last, so an interrupted rendering can go on and a
    finished one is left as it is.

    Raises:
        DataError: The folder holds other scenes or other files.
    """
    limit = count if captioned is None else min(captioned, count)
    settings = _Settings(count, seed, image_size, split, limit)
    table = folder / TABLE_FILE
    _claim(folder, settings)
    if table.exists():
        return table
    (folder / "images").mkdir(exist_ok=True)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "caption", "label"])
    with progress_bar("Rendering scenes", count) as bar:
        for number in range(count):
            scene = draw_scene(number, seed=seed, image_size=image_size, split=split)
            name = f"images/{number:06d}.png"
            if not (folder / name).exists():
                write_whole(folder / name, png_bytes(scene.image), shared=True)
            rows.writerow([name, scene.caption if number < limit else "", scene.label])
            bar.update(number + 1)
    write_whole(table, text.getvalue(), shared=True)
    return table


def draw_scene(number: int, *, seed: int, image_size: int = 48, split: Split = "train") -> Scene:
    """Return the scene with a number; all classes of the split are equally frequent."""
    names = class_names(split)
    turn, place = divmod(number, len(names))
    label = names[draw_permutation(len(names), "scene classes", split, seed, turn)[place]]
    colour, shape = label.split(" ")
    key = np.array(draw_integers("scene", split, seed, number, count=2), dtype=np.uint64)
    # Philox's raw numbers are the same in every version of numpy; its distributions are not.
    dice = _Dice(np.random.Philox(key=key).random_raw(32 + image_size * image_size * 3 // 2 + 1))
    size = list(_SIZES)[dice.integer(len(_SIZES))]
    background = list(_BACKGROUNDS)[dice.integer(len(_BACKGROUNDS))]
    mask = _draw_mask(shape, size, dice, image_size)
    image = _paint(mask, COLOURS[colour], _BACKGROUNDS[background], dice)
    caption = CAPTIONS[dice.integer(len(CAPTIONS))].format(
        a_colour=_article(colour),
        a_shape=_article(shape),
        colour=colour,
        shape=shape,
        size=size,
        background=background,
    )
    return Scene(image, caption, label)


class _Dice:
    """Draws from a stream of raw 64-bit numbers: 32 single ones, and noise from the others."""

    def __init__(self, raw: NDArray[np.uint64]) -> None:
        self._single = iter(raw[:32].tolist())
        self._bytes = raw[32:].astype("<u8").view(np.uint8)

    def integer(self, stop: int) -> int:
        return int(next(self._single)) % stop

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * (int(next(self._single)) >> 11) * 2.0**-53

    def noise(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return noise of mean 0 and standard deviation 1: a sum of four uniform bytes."""
        count = int(np.prod(shape))
        total = self._bytes[: 4 * count].reshape(count, 4).sum(axis=1, dtype=np.float32)
        # A uniform byte has the mean 127.5 and the variance (256² − 1) / 12.
        deviation = np.float32((4 * 65535 / 12) ** 0.5)
        noise: NDArray[np.float32] = ((total - 510) / deviation).reshape(shape)
        return noise


def _draw_mask(shape: str, size: str, dice: _Dice, image_size: int) -> NDArray[np.float32]:
    """Return how much of each pixel the shape covers, ``[H, W]`` from 0 to 1."""
    unit = image_size / 48 * _OVERSAMPLING
    radius = dice.uniform(*_SIZES[size]) * unit
    angle = np.deg2rad(dice.uniform(-_TILT, _TILT))
    stretch = np.array([dice.uniform(0.92, 1.08), dice.uniform(0.92, 1.08)])
    middle = (
        np.array([24 + dice.uniform(-_SHIFT, _SHIFT), 24 + dice.uniform(-_SHIFT, _SHIFT)]) * unit
    )
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    canvas = Image.new("L", (image_size * _OVERSAMPLING, image_size * _OVERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    for points, fill in SHAPES[shape]:
        placed = (points * stretch * radius) @ turn + middle
        pen.polygon([(float(x), float(y)) for x, y in placed], fill=fill)
    return np.asarray(canvas.reduce(_OVERSAMPLING), dtype=np.float32) / np.float32(255)


def _paint(
    mask_HW: NDArray[np.float32],
    colour: tuple[int, int, int],
    background: tuple[int, int, int],
    dice: _Dice,
) -> Image.Image:
    """Return shape and background with noise, unevenly lit and slightly off their colours."""
    height, width = mask_HW.shape
    layers = []
    for base, change, light in ((background, 8.0, 0.45), (colour, 12.0, 0.15)):
        tint = np.array([value + dice.uniform(-change, change) for value in base], np.float32)
        across, down = dice.uniform(-light, light), dice.uniform(-light, light)
        ramp = 1 + across * np.linspace(-1, 1, width)[None, :] / 2
        ramp = ramp + down * np.linspace(-1, 1, height)[:, None] / 2
        layers.append(tint * ramp[..., None].astype(np.float32))
    cover = mask_HW[..., None]
    picture = layers[0] * (1 - cover) + layers[1] * cover
    picture += np.float32(dice.uniform(2.0, 12.0)) * dice.noise((height, width, 3))
    return Image.fromarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8))


def _circle(radius: float = 1.0, x: float = 0.0, y: float = 0.0) -> NDArray[np.float64]:
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)


def _star() -> NDArray[np.float64]:
    turn = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.08, 0.45)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)


def _heart() -> NDArray[np.float64]:
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    across = 16 * np.sin(turn) ** 3
    down = -13 * np.cos(turn) + 5 * np.cos(2 * turn) + 2 * np.cos(3 * turn) + np.cos(4 * turn)
    return np.stack([across, down - 2.5], axis=1) / 16


def _points(*pairs: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(pairs)


# Upright, and within about one radius of the centre; y points down.
SHAPES: dict[str, tuple[_Outline, ...]] = {
    "circle": ((_circle(), 255),),
    "ring": ((_circle(), 255), (_circle(0.55), 0)),
    "square": ((_points((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)), 255),),
    "triangle": ((_points((0, -1), (1, 0.8), (-1, 0.8)), 255),),
    "diamond": ((_points((0, -1.15), (0.65, 0), (0, 1.15), (-0.65, 0)), 255),),
    "star": ((_star(), 255),),
    "cross": (
        (_points((-0.32, -1), (0.32, -1), (0.32, 1), (-0.32, 1)), 255),
        (_points((-1, -0.32), (1, -0.32), (1, 0.32), (-1, 0.32)), 255),
    ),
    "heart": ((_heart(), 255),),
    "crescent": ((_circle(), 255), (_circle(0.82, 0.42), 0)),
    "arrow": (
        (_points((1.05, 0), (0.1, -0.9), (0.1, 0.9)), 255),
        (_points((-1.0, -0.33), (0.15, -0.33), (0.15, 0.33), (-1.0, 0.33)), 255),
    ),
}


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def png_bytes(image: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _claim(folder: Path, settings: _Settings) -> None:
    """Write the settings into a new folder, or check that the folder has the same ones."""
    file = folder / _SETTINGS_FILE
    wanted = asdict(settings)
    if not file.exists():
        if folder.exists() and (not folder.is_dir() or _visible(folder)):
            raise DataError(
                f"{folder}: it holds files that are not scenes; choose a new or empty folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(wanted, indent=2) + "\n", shared=True)
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{file}: it is damaged; remove the folder or choose another path")
    differing = [
        f"{name} {found.get(name)} instead of {value}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if differing:
        raise DataError(
            f"{folder}: it holds scenes with other settings ({', '.join(differing)}); remove the "
            "folder or choose another path"
        )


def _visible(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]
