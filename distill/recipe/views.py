"""The section of a recipe on views."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict

from distill.recipe.base import Flag, Fraction, Natural, Positive, Section, later

_AreaShare = Annotated[float, Strict(), Field(gt=0, le=1)]

# timm ignores parts that it does not know, so a typo would go unnoticed.
_RAND_AUGMENT = {
    "m": r"\d+",
    "n": r"[1-9]|1[0-4]",
    "p": r"0\.\d+|1(\.0+)?",
    "mstd": r"\d+(\.\d+)?",
    "mmax": r"[1-9]\d*",
    "inc": r"[01]",
    "t": r"weights|3a|3aw",
}


def _rand_augment(value: str) -> str:
    """Refuse a text that is not a configuration of timm's RandAugment."""
    first, *parts = value.split("-")
    names = [
        name
        for part in parts
        for name, pattern in _RAND_AUGMENT.items()
        if re.fullmatch(f"{name}({pattern})", part)
    ]
    if first != "rand" or len(names) < len(parts) or len(set(names)) < len(names):
        raise ValueError(
            "must be rand and any of m9 (magnitude), n2 (operations), p0.5, mstd0.5, mmax10, inc1 "
            "and tweights, t3a or t3aw, each once and joined by -, such as rand-m9-n2-mstd0.5"
        )
    return value


_RandAugment = Annotated[str, Strict(), AfterValidator(_rand_augment)]


class ViewsSection(Section):
    """How a picture is cropped for training; teacher and student see the same crop."""

    seed: Natural | None = None
    """Seed of the crops; null: the run's seed."""
    kind: Literal["random", "center"] = "random"
    """Random crops, or the centre crop that evaluation uses."""
    scale: tuple[_AreaShare, _AreaShare] = (0.7, 1.0)
    """Smallest and largest share of the picture's area in a crop."""
    ratio: tuple[Positive, Positive] = (0.75, 4 / 3)
    """Smallest and largest ratio of width to height of a crop."""
    flip: Flag = False
    """Whether half of the crops are mirrored; leave it off if captions say left or right."""
    color_jitter: Fraction = 0.0
    """Largest relative change of brightness, contrast and saturation."""
    rand_augment: _RandAugment | None = None
    """timm's RandAugment, applied last, such as rand-m9-n2-mstd0.5; null: none."""
    draft: Annotated[Flag, later(False)] = False
    """Whether JPEGs are decoded at a half, quarter or eighth if the crops need no more."""
