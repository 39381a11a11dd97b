"""The sections of a recipe on views and on the teacher's cache."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Strict

from distill.config_base import Count, Flag, Natural, Positive, Section, Share, Text, whole

AreaShare = Annotated[float, Strict(), Field(gt=0, le=1)]
ViewCount = Annotated[int, Strict(), Field(ge=1, le=1000), BeforeValidator(whole)]


class ViewsSection(Section):
    """How a picture is cropped for training; teacher and student see the same crop."""

    seed: Natural | None = None
    """What the crops follow from; null: the run's seed."""
    kind: Literal["random", "center"] = "random"
    """Random crops, or the centre crop that evaluation uses."""
    scale: tuple[AreaShare, AreaShare] = (0.7, 1.0)
    """Smallest and largest share of the picture's area in a crop."""
    ratio: tuple[Positive, Positive] = (0.75, 4 / 3)
    """Smallest and largest width over height of a crop."""
    flip: Flag = False
    """Whether half of the crops are mirrored; captions that say left or right speak against it."""
    color_jitter: Share = 0.0
    """Largest relative change of brightness, contrast and saturation."""


class CacheSection(Section):
    """The teacher's embeddings on disk."""

    views: ViewCount = 4
    """How many crops of each picture are embedded."""
    folder: Text | None = None
    """Where the embeddings stand; null: inside the run folder."""
    dtype: Literal["float16", "float32"] = "float16"
    """Precision that they are stored in."""
    shard_rows: Count = 4096
    """Rows of a file; a killed run goes on after the last whole file."""
    batch_size: Count = 64
    """Pictures or captions that the teacher embeds at once."""
