"""Names that the parts of a run share; light enough for the command line."""

from typing import Literal

# Which of a run's students: that of the last step, or the best on the first evaluation set.
Checkpoint = Literal["last", "best"]
