"""Banks: the teacher's embeddings beyond the batch, which some terms need."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill.losses.weighted import Banks
from distill.teacher.cache.ensemble import CachedEnsemble
from distill.teacher.cache.manifest import PARTS, Part
from distill.train.batches import Partners


@dataclass(frozen=True)
class TeacherBanks:
    """What a run's terms take from the teacher besides the rows of the batch.

    ``prompts`` ``[M, D]`` stays the same for the whole run. Each step draws ``samples`` new rows
    from each of the ``parts`` of the corpus in ``cached``.
    """

    seed: int
    device: torch.device
    prompts: Tensor | None = None
    cached: CachedEnsemble | None = None
    samples: int = 0
    parts: frozenset[Part] = frozenset(PARTS)

    def at(self, step: int) -> Banks:
        """Return the banks of a step, the same on every process and after resuming."""
        prompts = None if self.prompts is None else self.prompts.to(self.device)
        return Banks(
            prompts=prompts,
            corpus_image=self._corpus("images", step),
            corpus_text=self._corpus("captions", step),
        )

    def _corpus(self, part: Part, step: int) -> Tensor | None:
        if self.cached is None or part not in self.parts:
            return None
        return self.cached.corpus(part, self.samples, self.seed, step).to(self.device)

    def with_partners(self, banks: Banks, partners: Partners, *, step: int, first: int) -> Banks:
        """Return the banks with the true partners of this process's rows.

        ``first`` is the number of the process's first row in the global batch.
        """
        if self.cached is None:
            return banks
        return replace(
            banks,
            image_partners=self._partners("captions", partners.captions, step, first),
            text_partners=self._partners("images", partners.pictures, step, first),
        )

    def _partners(self, part: Part, wanted: Tensor, step: int, first: int) -> Tensor | None:
        if self.cached is None or part not in self.parts:
            return None
        ids = self.cached.corpus_ids(part, self.samples, self.seed, step)
        return _find(wanted, ids, first)


def _find(wanted: Tensor, ids: Tensor, first: int) -> Tensor:
    """Return (row, column) pairs ``[P, 2]``: the wanted rows whose id is among ``ids``."""
    order = torch.argsort(ids)
    place = torch.searchsorted(ids[order], wanted[:, 1].contiguous()).clamp(max=len(ids) - 1)
    column = order[place]
    there = ids[column] == wanted[:, 1]
    return torch.stack([wanted[there, 0] + first, column[there]], dim=1)
