"""Banks: the teacher's embeddings beyond the batch that some terms compare the student with."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill.cache import CachedTeacher
from distill.train.batches import Partners
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

    def with_partners(self, banks: Banks, partners: Partners, *, step: int, first: int) -> Banks:
        """Return the banks with the true partners of this process's rows.

        ``first`` is the number of its first row in the global batch, from which rows are counted.
        """
        if self.cached is None:
            return banks
        captions = self.cached.corpus_ids("captions", self.samples, self.seed, step)
        pictures = self.cached.corpus_ids("images", self.samples, self.seed, step)
        return replace(
            banks,
            image_partners=_find(partners.captions, captions, first),
            text_partners=_find(partners.pictures, pictures, first),
        )


def _find(wanted: Tensor, ids: Tensor, first: int) -> Tensor:
    """Return the (row, column) pairs ``[P, 2]`` of those wanted whose id is among ``ids``."""
    order = torch.argsort(ids)
    place = torch.searchsorted(ids[order], wanted[:, 1].contiguous()).clamp(max=len(ids) - 1)
    column = order[place]
    there = ids[column] == wanted[:, 1]
    return torch.stack([wanted[there, 0] + first, column[there]], dim=1)
