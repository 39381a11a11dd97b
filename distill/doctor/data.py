"""What the doctor looks for in pictures and captions."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.basis.words import shorten
from distill.data.folder import is_picture
from distill.doctor.finding import Finding, fine, note, wrong

# Fewer than so many say nothing about all of them.
FEWEST = 8
# A share of the sample from which something is the rule and not chance, and one that is all of it.
MOST, ALL = 0.5, 0.98
# Pictures are compared at so many pixels a side.
THUMBNAIL = 16
# Levels of 255 by which a picture has to differ from one colour, or from another picture.
SAME = 1.0
# Neighbours in photographs correlate by 0.8 and more, in pure noise by 0; a part of the picture
# will do, unless it is of nearly one colour, where a sensor's own noise is all there is.
NOISE, PART, LOUD = 0.2, 256, 20.0

_NUMBERED = re.compile(r"[A-Za-z]{0,5}[-_ ]?[0-9][0-9a-fA-F_-]{2,}")


def examine_captions(about: str, captions: Sequence[str], keys: Sequence[str]) -> list[Finding]:
    """Look at a caption of each picture; ``keys`` are what the pictures are found by."""
    if len(captions) < FEWEST:
        return [fine(about, f"{len(captions)} in what was looked at, too few to say more")]
    text, count = Counter(captions).most_common(1)[0]
    if count > ALL * len(captions):
        return [
            wrong(
                about,
                f"{count} of {len(captions)} that were looked at are {shorten(text)}",
                "nothing tells the pictures apart by them; name the column that holds the text "
                "(caption_column), or leave captions out",
            )
        ]
    named = list(map(is_file_name, captions, keys))
    if sum(named) > MOST * len(captions):
        example = captions[named.index(True)]
        return [
            wrong(
                about,
                f"{sum(named)} of {len(captions)} are names of files or numbers, such as "
                f"{shorten(example)}",
                "name the column that holds the text (caption_column)",
            )
        ]
    if count > MOST * len(captions):
        return [
            note(
                about,
                f"{count} of {len(captions)} are {shorten(text)}",
                "see that they are what people wrote",
            )
        ]
    return [fine(about, f"{len(set(captions))} different ones in {len(captions)}")]


def is_file_name(caption: str, key: str) -> bool:
    """Tell whether a caption is the name of a file, its picture's or any, or a bare number."""
    text = caption.strip()
    place = PurePath(key)
    if text.casefold() in {key.casefold(), place.name.casefold(), place.stem.casefold()}:
        # A picture may well be called by what it shows: bonsai.jpg, red car.jpg.
        return any(character.isdigit() or character in "_./\\" for character in text)
    return is_picture(text) or "://" in text or bool(_NUMBERED.fullmatch(text))


def examine_labels(about: str, labels: Sequence[str]) -> list[Finding]:
    """Look whether classes have names that a text tower can read."""
    numbered = [label for label in dict.fromkeys(labels) if _NUMBERED.fullmatch(label)]
    if not labels or len(numbered) <= MOST * len(set(labels)):
        return []
    return [
        wrong(
            about,
            f"{len(numbered)} of {len(set(labels))} are codes, such as {shorten(numbered[0])}",
            "captions are made of them, and no text tower knows codes; name the classes (classes)",
        )
    ]


def examine_pictures(about: str, pictures: Sequence[Image.Image]) -> list[Finding]:
    """Look whether pictures differ, from each other and from one colour, and are no noise."""
    count = len(pictures)
    if count < FEWEST:
        return [fine(about, f"{count}, too few to say more")]
    small = np.stack([_thumbnail(picture) for picture in pictures])
    flat = int(np.count_nonzero(small.std(axis=(1, 2)).max(axis=1) < SAME))
    if flat > MOST * count:
        return [
            wrong(
                about,
                f"{flat} of {count} are of one colour",
                "see that the files are what they should be, and that no synthetic loader is on",
            )
        ]
    alike = most_alike(small)
    if alike > MOST * count:
        return [
            wrong(
                about,
                f"{alike} of {count} are the same picture",
                "see that the right files are named, and that no synthetic loader is on",
            )
        ]
    noisy = sum(is_noise(np.asarray(picture)) for picture in pictures)
    if noisy > MOST * count:
        return [
            wrong(
                about,
                f"{noisy} of {count} are noise: neighbouring pixels have nothing in common",
                "see that no synthetic loader is on",
            )
        ]
    return [fine(about, f"{count} that differ")]


def most_alike(small: NDArray[np.float64]) -> int:
    """Return how many of the thumbnails ``[N, H, W, 3]`` look like one of them, the most."""
    rows = small.reshape(len(small), -1)
    return max(int(np.count_nonzero(np.abs(rows - row).mean(axis=1) < SAME)) for row in rows)


def is_noise(pixels: NDArray[np.uint8]) -> bool:
    """Tell whether the middle of a picture ``[H, W, 3]`` is loud, and its neighbours unrelated."""
    top, left = (max(0, (side - PART) // 2) for side in pixels.shape[:2])
    part = pixels[top : top + PART, left : left + PART]
    grey = part.astype(np.float64).mean(axis=2)
    one, other = grey[:, :-1].ravel(), grey[:, 1:].ravel()
    if len(one) < THUMBNAIL or min(one.std(), other.std()) < LOUD:
        return False
    return float(np.corrcoef(one, other)[0, 1]) < NOISE


def examine_readable(about: str, unreadable: Sequence[str], count: int) -> list[Finding]:
    """Look how many of ``count`` pictures could not be read."""
    if not unreadable:
        return []
    told = f"{len(unreadable)} of {count} cannot be read: {unreadable[0]}"
    if len(unreadable) > MOST * count:
        return [wrong(about, told, "mend them, or leave them out")]
    return [note(about, told, "a run skips as many as data.max_skipped allows, and then stops")]


def _thumbnail(picture: Image.Image) -> NDArray[np.float64]:
    return np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float64)
