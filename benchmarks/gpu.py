"""Time training steps on a GPU with a teacher as large as ViT-L/14, live and cached.

    python -m benchmarks.gpu --out runs/gpu.json

The student is MobileNetV4 (small) with a BERT as large as MiniLM, in bf16 through Accelerate as in
training. All weights and data are random, which does not affect the time. A batch that does not fit
is cut into micro-batches (gradient caching), which are halved until they fit. For each batch size
the script prints images per second with the teacher live and with its embeddings given, peak
memory, and the share of the device's measured bf16 matmul rate that the step reaches.

It needs torch 2.9 or newer, transformers, timm, accelerate and numpy, and no network. Without a
CUDA device it prints one line and exits with status 2. ``--cpu --quick`` runs a miniature that
checks the script; its figures measure nothing.
"""

import argparse
import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, CLIPModel, PreTrainedTokenizerFast

from benchmarks.towers import (
    CONTEXT,
    WORDS,
    OurStep,
    Shape,
    describe_run,
    draw_captions,
    image_processor,
    optimizer_settings,
    write_json,
)
from distill.teacher.hf import TransformersTeacher
from distill.train.batches import Batch
from distill.train.piece import Piece
from students.config import StudentConfig
from students.encoder import Student, tokenize
from students.model import StudentModel

STUDENT_CONTEXT = 64
# Training with smaller micro-batches is pointless.
SMALLEST = 64
GIB = 1 << 30


@dataclass(frozen=True)
class Sizes:
    """The sizes of models and data."""

    teacher: Shape
    backbone: str
    bert: dict[str, int]
    batch_sizes: tuple[int, ...]
    matmul: int


FULL = Sizes(
    teacher=Shape(
        image_layers=24,
        image_width=1024,
        text_layers=12,
        text_width=768,
        image_size=224,
        patch_size=14,
        embedding=768,
    ),
    backbone="mobilenetv4_conv_small",
    bert={
        "vocab_size": 30522,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    batch_sizes=(1024, 4096, 16384, 32768),
    matmul=8192,
)
QUICK = Sizes(
    teacher=Shape(
        image_layers=2,
        image_width=64,
        text_layers=2,
        text_width=64,
        image_size=32,
        patch_size=8,
        embedding=64,
    ),
    backbone="mobilenetv4_conv_small",
    bert={
        "vocab_size": 1000,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
    },
    batch_sizes=(16, 32),
    matmul=256,
)


@dataclass(frozen=True)
class Row:
    """One line of the table. The figures are None if nothing fits."""

    teacher: str
    batch_size: int
    micro_batch_size: int | None = None
    median_seconds: float | None = None
    images_per_second: float | None = None
    peak_bytes: int | None = None
    flops: int | None = None
    share_of_matmul: float | None = None


def main() -> None:
    """Run the benchmark from the command line."""
    parser = _parser()
    options = parser.parse_args()
    if options.cpu and not options.quick:
        parser.error("--cpu requires --quick: the full sizes would take days")
    if not options.cpu and not torch.cuda.is_available():
        parser.exit(2, "benchmarks/gpu.py: found no CUDA device, so nothing was measured\n")
    if options.tf32:
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    sizes = QUICK if options.quick else FULL
    accelerator = Accelerator(cpu=options.cpu, mixed_precision="bf16")
    if options.quick:
        print("--quick: this checks that the script works; its figures measure nothing")
    rate = matmul_rate(sizes.matmul, accelerator.device)
    print(f"{_device_name(accelerator.device)}: {rate / 1e12:.1f} TFLOP/s in a bf16 matmul")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(sizes, accelerator, Path(folder), tuple(options.batch_sizes or ()))
        rows = bench.measure(options, rate)
    write_json(
        options.out,
        {
            **describe_run(["torch", "transformers", "timm", "accelerate", "numpy"]),
            "device": _device_name(accelerator.device),
            "cuda": torch.version.cuda,
            "is_a_measurement": not options.quick,
            "matmul_flops_per_second": rate,
            "tf32": options.tf32,
            "sizes": asdict(sizes),
            "rows": [asdict(row) for row in rows],
        },
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", help="in ascending order; default: 1024 to 32768"
    )
    parser.add_argument("--micro-batch-size", type=int, help="default: the largest that fits")
    parser.add_argument("--teachers", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--steps", type=int, default=5, help="timed steps per setting")
    parser.add_argument("--warmup", type=int, default=2, help="untimed steps before them")
    parser.add_argument("--tf32", action="store_true", help="allow TF32 for fp32 products")
    parser.add_argument("--cpu", action="store_true", help="run without a GPU; requires --quick")
    parser.add_argument("--quick", action="store_true", help="run a miniature; measures nothing")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser


MODES = ("cached", "live")


class Bench:
    """A student, its teacher, and random data for the largest batch."""

    def __init__(
        self, sizes: Sizes, accelerator: Accelerator, folder: Path, batch_sizes: tuple[int, ...]
    ) -> None:
        """Build the models on the device and the data in host memory."""
        self.batch_sizes = sorted(batch_sizes or sizes.batch_sizes)
        self.device = accelerator.device
        self.tokenizer = word_tokenizer()
        size, largest = sizes.teacher.image_size, self.batch_sizes[-1]
        student = build_student(sizes, self.tokenizer)
        teacher = build_teacher(sizes, self.tokenizer, self.device, folder)
        self.step = OurStep(student, teacher, accelerator, optimizer_settings())
        self.captions = draw_captions(largest, seed=0)
        self.pixels = torch.randint(256, (largest, size, size, 3), dtype=torch.uint8)
        self.given = F.normalize(torch.randn(2, largest, sizes.teacher.embedding), dim=-1)
        if self.device.type == "cuda":
            self.pixels, self.given = self.pixels.pin_memory(), self.given.pin_memory()

    def measure(self, options: argparse.Namespace, rate: float) -> list[Row]:
        """Time every batch size in both modes, and print each row of the table when it is ready."""
        print("\n| teacher | batch | micro-batch | ms | images/s | peak GiB | of matmul |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        rows = []
        for mode in options.teachers:
            micro = options.micro_batch_size or self.batch_sizes[-1]
            for count in self.batch_sizes:
                row = Row(mode, count)
                # A micro-batch that was too large for a smaller batch is too large for this one.
                while micro and row.median_seconds is None:
                    try:
                        row = self._time(mode, count, min(micro, count), options, rate)
                    except torch.OutOfMemoryError:
                        half = min(micro, count) // 2
                        micro = half if half >= SMALLEST else 0
                    self._clear()
                rows.append(row)
                print(_line(row), flush=True)
        return rows

    def batch(self, mode: str, count: int, micro: int) -> Batch:
        """Return the first rows of the data as a worker process returns them."""
        captions = self.captions[:count]
        pieces = [
            Piece(
                self.pixels[first : min(first + micro, count)],
                None,
                tokenize(
                    self.tokenizer,
                    captions[first : first + micro],
                    context_length=STUDENT_CONTEXT,
                    padding="longest",
                ),
            )
            for first in range(0, count, micro)
        ]
        numbers = torch.arange(count)
        live = mode == "live"
        return Batch(
            keys=[f"{number}.jpg" for number in range(count)],
            captions=captions,
            pair_ids=torch.stack([numbers, numbers], dim=1),
            pieces=pieces,
            teacher_pixels=(self.pixels[:count],) if live else (),
            teacher_image=None if live else self.given[0, :count],
            teacher_text=None if live else self.given[1, :count],
            partners=None,
            skipped=[],
        )

    def _time(
        self, mode: str, count: int, micro: int, options: argparse.Namespace, rate: float
    ) -> Row:
        batch = self.batch(mode, count, micro)
        seconds = []
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        for number in range(options.warmup + options.steps):
            started = _now(self.device)
            self.step(batch)
            if number >= options.warmup:
                seconds.append(_now(self.device) - started)
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        flops = count_flops(lambda: self.step(batch))
        median = statistics.median(seconds)
        return Row(
            teacher=mode,
            batch_size=count,
            micro_batch_size=micro,
            median_seconds=median,
            images_per_second=count / median,
            peak_bytes=peak,
            flops=flops,
            share_of_matmul=flops / median / rate,
        )

    def _clear(self) -> None:
        for optimizer in self.step.optimizers:
            optimizer.zero_grad()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer for the words of the captions; it needs no file."""
    names = ["<pad>", "<unknown>", "<begin>", "<end>", *WORDS.split()]
    words = {name: number for number, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<begin> $A <end>",
        special_tokens=[(name, words[name]) for name in ("<begin>", "<end>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unknown>",
        bos_token="<begin>",
        eos_token="<end>",
        model_max_length=CONTEXT,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_student(sizes: Sizes, tokenizer: PreTrainedTokenizerFast) -> Student:
    """Return a student with a timm backbone and a BERT, with random weights."""
    config = StudentConfig(
        image={"backbone": sizes.backbone, "arguments": {}, "projection": "linear"},
        text={
            "config": BertConfig(**sizes.bert).to_diff_dict(),
            "pooling": "mean",
            "projection": "linear",
            "context_length": STUDENT_CONTEXT,
        },
        projection_dim=sizes.teacher.embedding,
    )
    processor = image_processor(sizes.teacher.image_size)
    return Student(StudentModel(config), tokenizer, processor, STUDENT_CONTEXT, "longest")


def build_teacher(
    sizes: Sizes, tokenizer: PreTrainedTokenizerFast, device: torch.device, folder: Path
) -> TransformersTeacher:
    """Return a bf16 CLIP with random weights as a live teacher; ``folder`` stays empty."""
    config = sizes.teacher.clip_config(
        vocabulary=49408, end=int(tokenizer.eos_token_id), activation="quick_gelu"
    )
    with torch.device(device):
        model = CLIPModel(config)
    model.to(torch.bfloat16)
    processor = image_processor(sizes.teacher.image_size)
    parts = Student(model, tokenizer, processor, CONTEXT, "longest")
    return TransformersTeacher(parts, name="random CLIP", folder=folder, dtype="bfloat16")


def matmul_rate(size: int, device: torch.device) -> float:
    """Return the operations per second of a product of square bf16 matrices."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(5):
        started = _now(device)
        for _ in range(10):
            torch.mm(left, right)
        seconds.append((_now(device) - started) / 10)
    return 2 * size**3 / min(seconds)


def count_flops(step: Callable[[], object]) -> int:
    """Return the floating-point operations of a step as torch counts them.

    Every pass of gradient caching counts. torch's formula for the backward pass of a convolution
    ignores its groups, so this function replaces it.
    """
    mapping = {torch.ops.aten.convolution_backward: _convolution_backward_flops}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        step()
    return int(counter.get_total_flops())


def _convolution_backward_flops(
    gradient: Sequence[int],
    _inputs: Sequence[int],
    weight: Sequence[int],
    *arguments: Any,
    **_keywords: Any,
) -> int:
    # bias, stride, padding, dilation, transposed, output padding, groups; which gradients.
    wanted: Sequence[bool] = arguments[7]
    forward: int = 2 * gradient[0] * math.prod(gradient[2:]) * math.prod(weight)
    # The gradients of inputs and weights each cost as much as the forward pass.
    return forward * sum(wanted[:2])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _line(row: Row) -> str:
    if row.median_seconds is None:
        return f"| {row.teacher} | {row.batch_size} | out of memory | | | | |"
    peak = "–" if row.peak_bytes is None else f"{row.peak_bytes / GIB:.1f}"
    return (
        f"| {row.teacher} | {row.batch_size} | {row.micro_batch_size} "
        f"| {1000 * row.median_seconds:.0f} | {row.images_per_second:.0f} | {peak} "
        f"| {row.share_of_matmul:.1%} |"
    )


if __name__ == "__main__":
    main()
