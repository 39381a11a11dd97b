"""Run by test_several_processes.py, also under torchrun: what several processes compute together.

One launch does everything, because each process takes seconds to import torch and transformers.
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from tests.distill.train.gradients import gradient_of_three_rows, gradients_of_terms
from tests.distill.train.locks import weights_after_locking
from tests.distill.train.pieces import ROWS, gradients_in_pieces
from tests.distill.train.starts import started_projections

# Rows of a piece, by the number of processes.
PIECES = {1: ROWS, 2: 3, 4: 2}


def main(expected_processes: int, folder: Path) -> None:
    """Write a file for each part and process."""
    accelerator = Accelerator(cpu=True)
    processes, rank = accelerator.num_processes, accelerator.process_index
    assert processes == expected_processes
    found = {
        "terms": gradients_of_terms(rank, processes),
        "three_rows": gradient_of_three_rows(processes),
        "pieces": gradients_in_pieces(accelerator, PIECES[processes]),
        "starts": started_projections(accelerator),
        "locks": weights_after_locking(),
    }
    for name, values in found.items():
        torch.save(values, folder / f"{name}.{rank}.pt")
    if processes > 1:
        accelerator.end_training()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
