"""Training: batches, the step, the loop, checkpoints."""
