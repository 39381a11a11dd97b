"""Training: batches, the step, the loop, optimizers, checkpoints."""
