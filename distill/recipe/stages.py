"""The stages of a run, and the marks that say which stages a field changes.

The digest of a stage covers the fields that change its result or that of an earlier stage. A field
without its own mark takes the mark of the field that holds its section.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["cache", "train", "evaluate", "export"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True)
class Changes:
    """Marks a field with the first stage whose result it changes; None if it changes none.

    A ``resolved`` field enters the digest with its resolved value, not as the recipe writes it. For
    example, a preset enters as its terms.
    """

    stage: Stage | None
    resolved: bool = False


IN_CACHE = Changes("cache")
IN_TRAIN = Changes("train")
IN_EVALUATE = Changes("evaluate")
IN_EXPORT = Changes("export")
IN_NO_DIGEST = Changes(None)
