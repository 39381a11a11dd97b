"""open_clip's side of the step benchmark: its towers, its loss, and its training loop."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from open_clip_train.train import train_one_epoch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from benchmarks.towers import CONTEXT, Shape, optimizer_settings


class OpenClip:
    """open_clip's side: towers from JSON configs, and its training loop on one batch."""

    def __init__(self, folder: Path, shapes: Mapping[str, Shape]) -> None:
        """Build the towers with random weights."""
        configs = folder / "open_clip"
        configs.mkdir()
        for name, shape in shapes.items():
            path = configs / f"benchmark-{name}.json"
            path.write_text(json.dumps(open_clip_config(shape)), encoding="utf-8")
        open_clip.add_model_config(configs)
        self.student, self.teacher = (
            open_clip.create_model(f"benchmark-{name}", output_dict=True) for name in shapes
        )
        self.teacher.eval().requires_grad_(requires_grad=False)
        # The arguments of open_clip's command line; a rank other than 0 logs nothing.
        self.arguments = SimpleNamespace(
            distill=True,
            accum_freq=1,
            device="cpu",
            precision="fp32",
            skip_scheduler=True,
            horovod=False,
            grad_clip_norm=None,
            local_loss=False,
            gather_with_grad=False,
            rank=1,
            world_size=1,
            log_local=False,
            log_every_n_steps=100,
        )
        self.loss = open_clip.create_loss(SimpleNamespace(**{**vars(self.arguments), "rank": 0}))

    def step(
        self, teacher: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]
    ) -> Callable[[int], None]:
        """Return a function that runs open_clip's training loop on a batch with a new student."""
        student = copy.deepcopy(self.student)
        settings = optimizer_settings()
        decayed, others = split_as_open_clip(student)
        optimizer = torch.optim.AdamW(
            [
                {"params": others, "weight_decay": 0.0},
                {"params": decayed, "weight_decay": settings.weight_decay},
            ],
            lr=settings.learning_rate,
            betas=settings.betas,
        )

        def run(number: int) -> None:
            data = {"train": _OneBatch(batches[number])}
            train_one_epoch(
                student, data, self.loss, 0, optimizer, None, None, teacher, self.arguments
            )

        return run


def open_clip_config(shape: Shape) -> dict[str, Any]:
    """Return a shape as the content of an open_clip JSON config."""
    return {
        "embed_dim": shape.embedding,
        "vision_cfg": {
            "image_size": shape.image_size,
            "layers": shape.image_layers,
            "width": shape.image_width,
            "head_width": shape.head_width,
            "patch_size": shape.patch_size,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": 49408,
            "width": shape.text_width,
            "heads": shape.text_width // shape.head_width,
            "layers": shape.text_layers,
        },
    }


def split_as_open_clip(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters with weight decay, and those without, as its ``main.py`` does."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or any(
            word in name for word in ("bn", "ln", "bias", "logit_scale")
        )
        (others if plain else decayed).append(parameter)
    return decayed, others


class _OneBatch:
    """One batch in the form that open_clip's loop takes."""

    num_batches = 1

    def __init__(self, batch: tuple[Tensor, Tensor]) -> None:
        self.num_samples = len(batch[0])
        self.dataloader = self
        self._batch = batch

    def set_epoch(self, _epoch: int) -> None:
        """Return the same batch in every epoch."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([self._batch])


class Given(nn.Module):
    """A teacher with precomputed outputs."""

    def __init__(self, teacher: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        with torch.no_grad():
            # The texts identify a batch: the same tensor comes back each time.
            self._outputs = {id(texts): teacher(images, texts) for images, texts in batches}

    def forward(self, _images: Tensor, texts: Tensor) -> Any:
        """Return the teacher's outputs for a batch."""
        return self._outputs[id(texts)]


def tokenizers() -> tuple[CLIPTokenizer, Callable[[Sequence[str]], Tensor]]:
    """Return CLIP's tokenizer of transformers, built from open_clip's files, and open_clip's."""
    theirs = open_clip.SimpleTokenizer(context_length=CONTEXT)
    begin, end = (theirs.decoder[number] for number in theirs.all_special_ids)
    ours = CLIPTokenizer(
        vocab=dict(theirs.encoder),
        merges=list(theirs.bpe_ranks),
        bos_token=begin,
        eos_token=end,
        unk_token=end,
        pad_token=end,
        model_max_length=CONTEXT,
    )
    return ours, lambda texts: theirs(list(texts))
