"""The stages of a run, and the mark by which a field says which of them it changes.

The digest of a stage covers the values of the fields that change its result, and those of the
stages before it. A field without a mark of its own is covered by the mark of the field that its
section stands in.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["cache", "train", "evaluate", "export"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True)
class Changes:
    """Marks a field with the first stage whose result it changes; None if it changes none.

    A field that is ``resolved`` enters the digest as what it comes to and not as it is written,
    such as a preset as its terms.
    """

    stage: Stage | None
    resolved: bool = False


IN_CACHE = Changes("cache")
IN_TRAIN = Changes("train")
IN_EVALUATE = Changes("evaluate")
IN_EXPORT = Changes("export")
IN_NO_DIGEST = Changes(None)
