"""The section of a recipe on the teacher's cache."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Strict

from distill.recipe.base import Count, Section, Text, whole

ViewCount = Annotated[int, Strict(), Field(ge=1, le=1000), BeforeValidator(whole)]


class CacheSection(Section):
    """The teacher's embeddings on disk."""

    views: ViewCount = 4
    """How many crops of each picture are embedded."""
    folder: Text | None = None
    """Where the embeddings stand; null: inside the run folder."""
    dtype: Literal["float16", "float32", "int8"] = "float16"
    """Precision that they are stored in; int8 has a scale of its own for every vector."""
    shard_rows: Count = 4096
    """Rows of a file; a killed run goes on after the last whole file."""
    batch_size: Count = 64
    """Pictures or captions that the teacher embeds at once."""
