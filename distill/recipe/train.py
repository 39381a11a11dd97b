"""The section of a recipe on training."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from distill.recipe.base import Count, Flag, Natural, NonNegative, Positive, Section
from distill.recipe.stages import IN_NO_DIGEST, IN_TRAIN

_Beta = Annotated[float, Strict(), Field(ge=0, lt=1)]
_Decay = Annotated[float, Strict(), Field(gt=0, lt=1)]
_LayerDecay = Annotated[float, Strict(), Field(gt=0, le=1)]


class TrainSection(Section):
    """How the student learns."""

    teacher: Annotated[Literal["cached", "live", "absent"], IN_TRAIN] = "cached"
    """Where embeddings come from: the cache, the teacher itself at every step, or nowhere."""
    batch_size: Annotated[Count, IN_TRAIN] = 256
    """Pairs in a step, over all processes together."""
    micro_batch_size: Annotated[Count | None, IN_NO_DIGEST] = None
    """Most pairs that the towers of a process take at once; null: its whole share of the batch."""
    tile_rows: Annotated[Count | None, IN_NO_DIGEST] = None
    """Rows of a similarity matrix held at once; null: as many as are fast."""
    steps: Annotated[Count | None, IN_TRAIN] = None
    """Length of the run in steps; give either this or epochs."""
    epochs: Annotated[Positive | None, IN_TRAIN] = 10.0
    """Length of the run in passes over the data; give either this or steps."""
    optimizer: Annotated[Literal["adamw", "muon"], IN_TRAIN] = "adamw"
    """AdamW for everything, or Muon for the layers' matrices and AdamW for the rest."""
    learning_rate: Annotated[Positive, IN_TRAIN] = 1e-3
    """AdamW's learning rate after the warmup."""
    image_learning_rate: Annotated[Positive | None, IN_TRAIN] = None
    """Learning rate of the image tower; null: learning_rate. Muon's rate scales with it."""
    text_learning_rate: Annotated[Positive | None, IN_TRAIN] = None
    """Learning rate of the text tower; null: learning_rate. Muon's rate scales with it."""
    layer_decay: Annotated[_LayerDecay | None, IN_TRAIN] = None
    """Factor of the learning rate from each layer to the one below; null: the same for all."""
    muon_learning_rate: Annotated[Positive, IN_TRAIN] = 3e-3
    """Muon's learning rate after the warmup."""
    weight_decay: Annotated[NonNegative, IN_TRAIN] = 0.05
    """Decay of the matrices; norms, biases and scales have none."""
    betas: Annotated[tuple[_Beta, _Beta], IN_TRAIN] = (0.9, 0.98)
    """AdamW's decay of its two moving averages."""
    warmup_steps: Annotated[Natural, IN_TRAIN] = 100
    """Steps in which the learning rate rises from 0."""
    schedule: Annotated[Literal["cosine", "constant"], IN_TRAIN] = "cosine"
    """Learning rate after the warmup: down half a cosine to 0, or constant."""
    alignment_first_steps: Annotated[Natural, IN_TRAIN] = 0
    """First steps, in which embedding_alignment is the only term."""
    freeze_image_steps: Annotated[Natural, IN_TRAIN] = 0
    """First steps, in which the image tower is frozen and only its projection learns."""
    freeze_text_steps: Annotated[Natural, IN_TRAIN] = 0
    """First steps, in which the text tower is frozen and only its projection learns."""
    ema_decay: Annotated[_Decay | None, IN_TRAIN] = None
    """Decay of the moving average of the weights at each step; null: no average."""
    gradient_checkpointing: Annotated[Flag, IN_NO_DIGEST] = False
    """Whether towers recompute activations to save memory."""
    compile: Annotated[Flag, IN_NO_DIGEST] = False
    """Whether to compile the towers with torch.compile, which takes minutes and then saves time."""
    channels_last: Annotated[Flag | None, IN_NO_DIGEST] = None
    """Whether pictures have channels last; null: for convolutions on CUDA and CPUs."""
    precision: Annotated[Literal["fp32", "fp16", "bf16"], IN_TRAIN] = "fp32"
    """Precision of the towers; losses are always in fp32."""
    gradient_clip: Annotated[Positive | None, IN_TRAIN] = 1.0
    """Largest norm of the gradient; null: no limit."""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], IN_NO_DIGEST] = "auto"
    """Device to train on; auto: CUDA or MPS if available, else the CPU."""
    log_every: Annotated[Count, IN_NO_DIGEST] = 10
    """Steps between two lines in metrics.jsonl."""
    validate_every: Annotated[Count, IN_TRAIN] = 200
    """Steps between two validations."""
    validation_samples: Annotated[Count, IN_TRAIN] = 500
    """Pictures in each validation."""
    save_every: Annotated[Count, IN_NO_DIGEST] = 200
    """Steps between two checkpoints."""
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], IN_NO_DIGEST] = ()
    """Trackers that also get the lines of metrics.jsonl, through Accelerate."""

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, values: Any) -> Any:
        # The default number of epochs gives way if steps are given.
        given = isinstance(values, Mapping) and values.get("steps") is not None
        return {**values, "epochs": values.get("epochs")} if given else values
