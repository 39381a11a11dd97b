"""Shared by the benchmarks of a training step: captions, CLIP towers, and our step."""

import datetime
import json
import os
import platform
import random
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
)

from distill.basis.files import write_whole
from distill.data.pairs import group_rows
from distill.losses.embeddings import Embeddings
from distill.losses.weighted import Term, WeightedLoss
from distill.teacher.cache.cache import CachedTeacher
from distill.teacher.protocol import Teacher
from distill.train.batches import Batch
from distill.train.optimizer import OptimizerSettings, build_optimizers, build_schedules
from distill.train.step import GlobalLoss, StepResult, TrainableStudent, training_step
from export.runtime.preprocess import Preprocessing
from students.encoder import Student, clamp_logit_scale
from students.switches import choose_memory_format

# The maximum number of tokens that CLIP reads.
CONTEXT = 77
# Each is one token of CLIP's own tokenizer.
WORDS = """
    a the two three man woman boy girl child dog cat horse bird car bus train boat bike street
    house room table chair window door tree grass water beach snow mountain sky city park field
    ball shirt hat red blue green black white brown yellow small large young old happy running
    walking sitting standing playing riding holding wearing eating jumping looking on in with
    near under over behind and of while through across along
"""
# With the start and end tokens, captions have 8 to 20 tokens.
CAPTION_WORDS = range(6, 19)


def draw_captions(count: int, *, seed: int) -> list[str]:
    """Return different captions of 6 to 18 words, evenly spread over these lengths."""
    draw, words = random.Random(seed), WORDS.split()
    captions: dict[str, None] = {}
    while len(captions) < count:
        length = CAPTION_WORDS[len(captions) % len(CAPTION_WORDS)]
        captions[" ".join(draw.choices(words, k=length))] = None
    texts = list(captions)
    draw.shuffle(texts)
    return texts


@dataclass(frozen=True)
class Shape:
    """The sizes of a CLIP model: its towers, pictures and embeddings."""

    image_layers: int
    image_width: int
    text_layers: int
    text_width: int
    image_size: int
    patch_size: int
    embedding: int
    head_width: int = 64

    def clip_config(self, *, vocabulary: int, end: int, activation: str = "gelu") -> CLIPConfig:
        """Return the config for transformers; ``end`` is the token that ends a text."""
        vision = CLIPVisionConfig(
            hidden_size=self.image_width,
            intermediate_size=4 * self.image_width,
            num_hidden_layers=self.image_layers,
            num_attention_heads=self.image_width // self.head_width,
            image_size=self.image_size,
            patch_size=self.patch_size,
            hidden_act=activation,
        )
        text = CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=self.text_width,
            intermediate_size=4 * self.text_width,
            num_hidden_layers=self.text_layers,
            num_attention_heads=self.text_width // self.head_width,
            max_position_embeddings=CONTEXT,
            hidden_act=activation,
            pad_token_id=end,
            bos_token_id=end - 1,
            eos_token_id=end,
        )
        return CLIPConfig(
            text_config=text.to_dict(),
            vision_config=vision.to_dict(),
            projection_dim=self.embedding,
        )


def image_processor(size: int) -> CLIPImageProcessorPil:
    """Return CLIP's preprocessing for a size of picture."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )


def clip_from_open_clip(model: nn.Module, shape: Shape) -> CLIPModel:
    """Return transformers' ``CLIPModel`` with the weights of open_clip's ``CLIP`` of that shape.

    Raises:
        RuntimeError: If a tensor is missing or unknown to ``CLIPModel``.
    """
    theirs = model.state_dict()
    vocabulary = len(theirs["token_embedding.weight"])
    config = shape.clip_config(vocabulary=vocabulary, end=vocabulary - 1)
    ours: dict[str, Tensor] = {
        "logit_scale": theirs["logit_scale"],
        "visual_projection.weight": theirs["visual.proj"].T,
        "text_projection.weight": theirs["text_projection"].T,
        "vision_model.embeddings.class_embedding": theirs["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": theirs["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": theirs["visual.positional_embedding"],
        "text_model.embeddings.token_embedding.weight": theirs["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": theirs["positional_embedding"],
    }
    for name, other in (
        # This is how transformers spells it.
        ("vision_model.pre_layrnorm", "visual.ln_pre"),
        ("vision_model.post_layernorm", "visual.ln_post"),
        ("text_model.final_layer_norm", "ln_final"),
    ):
        ours |= _linear(theirs, other, name)
    for tower, other, layers in (
        ("vision_model", "visual.transformer", shape.image_layers),
        ("text_model", "transformer", shape.text_layers),
    ):
        for number in range(layers):
            block = f"{other}.resblocks.{number}"
            ours |= _layer(theirs, block, f"{tower}.encoder.layers.{number}")
    converted: CLIPModel = CLIPModel(config)
    converted.load_state_dict({name: tensor.clone() for name, tensor in ours.items()})
    return converted.eval()


def _layer(state: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        # open_clip keeps the three projections of attention in one matrix.
        parts = state[f"{theirs}.attn.in_proj_{part}"].chunk(3)
        for name, tensor in zip("qkv", parts, strict=True):
            found[f"{ours}.self_attn.{name}_proj.{part}"] = tensor
    for name, other in (
        ("self_attn.out_proj", "attn.out_proj"),
        ("layer_norm1", "ln_1"),
        ("layer_norm2", "ln_2"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
    ):
        found |= _linear(state, f"{theirs}.{other}", f"{ours}.{name}")
    return found


def _linear(state: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.{part}": state[f"{theirs}.{part}"] for part in ("weight", "bias")}


@dataclass
class OurStep:
    """One step of the training loop, from the teacher to clamping the scale.

    ``teacher`` is live or cached. A cached teacher is looked up here too, although training does
    that in worker processes. If a batch brings the teacher's embeddings, they are used instead.
    """

    student: Student
    teacher: Teacher | CachedTeacher
    accelerator: Accelerator
    optimizer: OptimizerSettings
    terms: Mapping[str, float] = field(
        default_factory=lambda: {"contrastive": 1.0, "kl_divergence": 1.0}
    )

    def __post_init__(self) -> None:
        if self.student.image_processor is None:
            raise ValueError("the student has no image tower")
        look = Preprocessing.from_processor(self.student.image_processor.to_dict())
        self.loss = WeightedLoss({name: Term(weight) for name, weight in self.terms.items()})
        trained = TrainableStudent(self.student.model, mean=look.mean, std=look.std)
        trained.to(self.accelerator.device)
        trained.memory_format = choose_memory_format(
            self.student.model, wanted=None, device=self.accelerator.device
        )
        optimizers = build_optimizers(trained, self.optimizer)
        self.schedules = build_schedules(optimizers, self.optimizer, steps=1_000_000)
        self.model, *self.optimizers = self.accelerator.prepare(trained, *optimizers)

    def __call__(self, batch: Batch) -> StepResult:
        """Run one step."""
        device = self.accelerator.device
        self.model.train()
        loss = self.global_loss(batch, self.teach(batch))
        result = training_step(
            self.model,
            [piece.to(device) for piece in batch.pieces],
            loss,
            optimizers=self.optimizers,
            accelerator=self.accelerator,
            gradient_clip=None,
        )
        for schedule in self.schedules:
            schedule.step()
        clamp_logit_scale(self.student.model)
        return result

    def global_loss(self, batch: Batch, teacher: Embeddings) -> GlobalLoss:
        """Return the loss of a batch, given the teacher's embeddings."""
        ids = batch.pair_ids.to(self.accelerator.device).cpu()
        groups = torch.from_numpy(group_rows(ids[:, 0].tolist(), ids[:, 1].tolist()))
        return GlobalLoss(
            self.loss,
            teacher=teacher,
            groups=groups.to(self.accelerator.device),
            banks=None,
            progress=0.0,
            tile_rows=None,
        )

    @torch.no_grad()
    def teach(self, batch: Batch) -> Embeddings:
        """Return the teacher's embeddings of a batch."""
        teacher, device = self.teacher, self.accelerator.device
        if batch.teacher_image is not None and batch.teacher_text is not None:
            image, text = batch.teacher_image, batch.teacher_text
        elif isinstance(teacher, CachedTeacher):
            first = [0] * len(batch.keys)
            image = teacher.images(first, batch.keys, first)
            text = teacher.captions(batch.captions)
        else:
            image = teacher.encode_images(batch.teacher_pixels[0])
            text = teacher.encode_texts(batch.captions)
        return Embeddings(
            image=image.to(device),
            text=text.to(device),
            scale=torch.tensor(teacher.logit_scale, device=device),
            bias=torch.tensor(teacher.logit_bias, device=device),
        )


def optimizer_settings() -> OptimizerSettings:
    """Return AdamW with the defaults of open_clip's command line for ViT towers."""
    return OptimizerSettings(
        optimizer="adamw",
        learning_rate=5e-4,
        muon_learning_rate=5e-4,
        weight_decay=0.2,
        betas=(0.9, 0.98),
        warmup_steps=0,
        schedule="constant",
    )


def describe_run(packages: Sequence[str]) -> dict[str, Any]:
    """Return the circumstances of a measurement: date, command, versions, processor, load."""
    return {
        "date": datetime.date.today().isoformat(),
        "command": f"python -m benchmarks.{Path(sys.argv[0]).stem} {shlex.join(sys.argv[1:])}",
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in packages},
        "hardware": {
            "processor": _processor(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load": list(os.getloadavg()),
        },
    }


def write_json(path: Path | None, values: Mapping[str, Any]) -> None:
    """Write a measurement to the file from the command line, whole or not at all."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(values, indent=2) + "\n")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    lines = names.read_text(encoding="utf-8").splitlines() if names.is_file() else []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor()
