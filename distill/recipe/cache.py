"""The section of a recipe on the teacher's cache."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Strict

from distill.recipe.base import Count, Section, Text, whole
from distill.recipe.stages import IN_CACHE, IN_NO_DIGEST

_ViewCount = Annotated[int, Strict(), Field(ge=1, le=1000), BeforeValidator(whole)]


class CacheSection(Section):
    """The teacher's embeddings on disk."""

    views: Annotated[_ViewCount, IN_CACHE] = 4
    """How many crops of each picture are embedded."""
    folder: Annotated[Text | None, IN_CACHE] = None
    """Folder of the embeddings; null: inside the run folder."""
    dtype: Annotated[Literal["float16", "float32", "int8"], IN_CACHE] = "float16"
    """Precision that they are stored in; int8 keeps a scale for each vector."""
    shard_rows: Annotated[Count, IN_NO_DIGEST] = 4096
    """Rows in a file; a killed run resumes after the last whole file."""
    batch_size: Annotated[Count, IN_NO_DIGEST] = 64
    """Pictures or captions that the teacher embeds at once."""
