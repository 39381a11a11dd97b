"""Loss terms as pure functions of tensors, their catalogue, and their weighted sum.

A term is a function in the module of its family: `distill.losses.distributions`,
`distill.losses.contrastive`, `distill.losses.alignment`, `distill.losses.prompts` or
`distill.losses.corpus`. `distill.losses.catalogue` has a row for each term, and
`distill.losses.weighted.WeightedLoss` is the weighted sum of a recipe's terms.

The docstrings use these symbols:

- I and T: a model's image and text embeddings ``[B, D]``, L2-normalised. A suffix s or t marks
  those of the student or the teacher.
- S: a model's logits ``scale · I Tᵀ + bias``, ``[B, B]``, with images in rows.
- P: the softmax over a row; τ is the temperature.
- CE and KL: the cross entropy and the Kullback–Leibler divergence of rows, the mean over rows.

Every term returns a scalar: the mean over the batch and, if it has both directions, over image to
text and text to image. Similarities, softmax and norms are computed in the precision of the inputs,
and in at least float32, even under autocast. No gradient reaches a tensor of the teacher. A matrix
``[B, B]`` is never held whole: `distill.losses.tiled` computes it in tiles.
"""
