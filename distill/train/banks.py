"""Banks: the teacher's embeddings beyond the batch that some terms compare the student with."""

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.cache import CachedTeacher
from distill.weighted import Banks


@dataclass(frozen=True)
class TeacherBanks:
    """What a run's terms take from the teacher beside the rows of the batch.

    ``prompts`` ``[M, D]`` stays the same for the whole run; of the corpus in ``cached``,
    ``samples`` captions and pictures are drawn anew for each step.
    """

    seed: int
    device: torch.device
    prompts: Tensor | None = None
    cached: CachedTeacher | None = None
    samples: int = 0

    def at(self, step: int) -> Banks:
        """Return the banks of a step: the same on every process, whatever came before."""
        image = text = None
        if self.cached is not None:
            image = self.cached.corpus("images", self.samples, self.seed, step).to(self.device)
            text = self.cached.corpus("captions", self.samples, self.seed, step).to(self.device)
        prompts = None if self.prompts is None else self.prompts.to(self.device)
        return Banks(prompts=prompts, corpus_image=image, corpus_text=text)
