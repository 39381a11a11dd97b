"""The names that a run's parts share; nothing is imported here, so the command line may use it."""

from typing import Literal, get_args

Stage = Literal["cache", "train", "evaluate", "export"]
STAGES: tuple[Stage, ...] = get_args(Stage)
# Which of a run's students: that of the last step, or the best on the first evaluation set.
Checkpoint = Literal["last", "best"]
