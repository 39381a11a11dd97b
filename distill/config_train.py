"""The section of a recipe on training."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from distill.config_base import Count, Natural, NonNegative, Positive, Section

Beta = Annotated[float, Strict(), Field(ge=0, lt=1)]


class TrainSection(Section):
    """How the student learns."""

    teacher: Literal["cached", "live", "absent"] = "cached"
    """Embeddings from the cache, from the teacher itself at every step, or none."""
    batch_size: Count = 256
    """Pairs in a step, over all processes together."""
    steps: Count | None = None
    """Length of the run in steps; give either this or epochs."""
    epochs: Positive | None = 10.0
    """Length of the run in passes over the data; give either this or steps."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW for everything, or Muon for the layers' matrices and AdamW for the rest."""
    learning_rate: Positive = 1e-3
    """AdamW's learning rate after the warmup."""
    muon_learning_rate: Positive = 3e-3
    """Muon's learning rate after the warmup."""
    weight_decay: NonNegative = 0.05
    """Decay of the matrices; norms, biases and the logit scale have none."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """AdamW's decay of its two moving averages."""
    warmup_steps: Natural = 100
    """Steps in which the learning rate rises from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate goes on after the warmup: down half a cosine to 0, or not at all."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision of the towers; losses are always in fp32."""
    gradient_clip: Positive | None = 1.0
    """Largest norm of the gradient; null: no limit."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto: on CUDA or MPS where there is one."""
    log_every: Count = 10
    """Steps between two lines in metrics.jsonl."""
    validate_every: Count = 200
    """Steps between two looks at the validation data."""
    validation_samples: Count = 500
    """How many pictures such a look takes."""
    save_every: Count = 200
    """Steps between two checkpoints."""

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, values: Any) -> Any:
        # The default is a number of epochs; it gives way where steps are named.
        given = isinstance(values, Mapping) and values.get("steps") is not None
        return {**values, "epochs": values.get("epochs")} if given else values
