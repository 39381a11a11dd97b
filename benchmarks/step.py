"""Time our training step against open_clip's, with a live and a precomputed teacher.

    python -m benchmarks.step --out runs/step.json

Four students with the same weights take turns, step by step, on one thread: (a) open_clip's
``train_one_epoch`` with ``--distill-model`` and a live teacher; (b) the same with the teacher's
outputs precomputed; (c) our step with the live teacher; (d) our step with a cache. Teacher,
pictures, captions, optimizer and loss (contrastive + KL) are the same.

open_clip's pictures are scaled and its texts tokenized before the clock starts, as its workers do.
Our batches come from ``StepDataset``, as a worker returns them. Two costs count as ours: the live
teacher does its own tokenizing, and the step looks embeddings up in the cache, although a worker
does that in training.

Before it times anything, the script compares embeddings and losses of both sides.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from benchmarks.open_clip_step import Given, OpenClip, tokenizers
from benchmarks.timing import Times, split_step, take_turns
from benchmarks.towers import (
    CONTEXT,
    OurStep,
    Shape,
    clip_from_open_clip,
    describe_run,
    draw_captions,
    image_processor,
    optimizer_settings,
    write_json,
)
from distill.data.order.position import Position
from distill.data.pairs import Captions
from distill.data.sample import Sample, Skip
from distill.data.views import ViewSettings
from distill.teacher.cache.build import BuildSettings, build_cache
from distill.teacher.cache.cache import CachedTeacher
from distill.teacher.hf import load_hf_teacher
from distill.teacher.protocol import Teacher
from distill.train.batches import Batch, Inputs, StepDataset
from export.runtime.preprocess import Preprocessing
from students.encoder import Student, embed_images, embed_texts
from students.messages import quiet

EPOCHS = 5
GOALS = {
    "d/a": 3.0,
    "d/b": 1.1,
    "c/a": 1.1,
    "d/a with the cache's cost": 2.0,
}
NAMES = {
    "a": "open_clip, live teacher",
    "b": "open_clip, teacher's outputs precomputed",
    "c": "ours, live teacher",
    "d": "ours, cached",
}


def main() -> None:
    """Run the benchmark from the command line."""
    options = _parser().parse_args()
    torch.set_num_threads(1)
    # Otherwise tokenizers start their own threads.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.manual_seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        agreement = bench.check()
        print(json.dumps(agreement))
        times = take_turns(bench.steps(), warmup=options.warmup, count=options.steps)
        split = {}
        if options.profile:
            step = bench.our_step(bench.cached.teacher)
            split = split_step(step, bench.batches, warmup=options.warmup, count=options.steps)
    report = summarise(times, bench, options)
    report["agreement"] = agreement
    report["our_step"] = split
    print_report(report)
    write_json(options.out, report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument(
        "--batches", type=int, default=4, help="number of different batches, used in turn"
    )
    parser.add_argument("--steps", type=int, default=20, help="timed steps per way")
    parser.add_argument("--warmup", type=int, default=3, help="untimed steps before them")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--patch-size", type=int, default=8)
    parser.add_argument("--teacher-layers", type=int, default=6)
    parser.add_argument("--teacher-width", type=int, default=256)
    parser.add_argument("--student-layers", type=int, default=3)
    parser.add_argument("--student-width", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", action="store_true", help="time the parts of our step")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser


class Pictures:
    """Random pictures of one size, each with one caption, as a source."""

    skipped: tuple[Skip, ...] = ()

    def __init__(self, captions: Sequence[str], *, size: int, seed: int) -> None:
        """Generate a picture for each caption."""
        draw = np.random.default_rng(seed)
        self.name = "random pictures"
        self.rows = len(captions)
        self._captions = captions
        self._files = []
        for _ in captions:
            file = io.BytesIO()
            pixels = draw.integers(256, size=(size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file, "png", compress_level=1)
            self._files.append(file.getvalue())

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> Sample:
        return Sample(f"{index:06d}.png", self._files[index], (self._captions[index],), None)


@dataclass(frozen=True)
class Built:
    """A cache, and the seconds to build it per picture and caption."""

    teacher: CachedTeacher
    clock: float
    processor: float


class Bench:
    """Both sides, with the same data and weights."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        """Build the towers, the batches and the cache."""
        self._folder = folder
        self.size = options.batch_size
        self.shapes = {name: _shape(options, name) for name in ("student", "teacher")}
        self.open_clip = OpenClip(folder, self.shapes)
        self.tokenizer, theirs = tokenizers()
        captions = draw_captions(options.batches * self.size, seed=options.seed)
        self.pictures = Pictures(captions, size=options.image_size, seed=options.seed)
        self.views = ViewSettings(0, "center", (1.0, 1.0), (1.0, 1.0), False, 0.0)
        self.live = self._load_teacher()
        self.cached = self._build_cache()
        self.batches = self._draw_batches(options.batches)
        self.their_batches = [
            (self._normalised(batch), theirs(batch.captions)) for batch in self.batches
        ]
        lengths = (self.their_batches[0][1] != 0).sum(dim=1)
        self.tokens = {"shortest": int(lengths.min()), "longest": int(lengths.max())}

    @cached_property
    def look(self) -> Preprocessing:
        """The preprocessing of student and teacher."""
        return self.live.preprocessing

    def student(self) -> Student:
        """Return a copy of our student, with the weights of open_clip's."""
        return Student(
            clip_from_open_clip(self.open_clip.student, self.shapes["student"]),
            self.tokenizer,
            image_processor(self.shapes["student"].image_size),
            CONTEXT,
            "longest",
        )

    def our_step(self, teacher: Teacher | CachedTeacher) -> OurStep:
        """Return our step with a new student."""
        return OurStep(self.student(), teacher, Accelerator(cpu=True), optimizer_settings())

    def steps(self) -> dict[str, Callable[[int], object]]:
        """Return the four steps, as functions of the step's number."""
        theirs = self.their_batches
        given = Given(self.open_clip.teacher, theirs)
        live, cached = self.our_step(self.live), self.our_step(self.cached.teacher)
        count = len(self.batches)
        with_live = self.open_clip.step(self.open_clip.teacher, theirs)
        with_given = self.open_clip.step(given, theirs)
        return {
            "a": lambda step: with_live(step % count),
            "b": lambda step: with_given(step % count),
            "c": lambda step: live(self.batches[step % count]),
            "d": lambda step: cached(self.batches[step % count]),
        }

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Compare embeddings and losses of both sides on the first batch, before any step.

        Raises:
            RuntimeError: If they differ by more than rounding.
        """
        images, texts = self.their_batches[0]
        batch, student = self.batches[0], self.student()
        theirs = self.open_clip.student(images, texts)
        teacher = self.open_clip.teacher(images, texts)
        found = {
            "student_image": _gap(embed_images(student.model, images), theirs["image_features"]),
            "student_text": _gap(
                embed_texts(student.model, batch.pieces[0].tokens or {}), theirs["text_features"]
            ),
        }
        losses = self.open_clip.loss(
            **theirs, **{f"dist_{key}": value for key, value in teacher.items()}, output_dict=True
        )
        # open_clip's term is the cross entropy, which has the same gradient as KL.
        expected = {
            "contrastive": float(losses["contrastive_loss"]),
            "kl_divergence": float(losses["distill_loss"] - entropy(teacher)),
        }
        found |= {f"open_clip_{name}": value for name, value in expected.items()}
        for name, tolerance in (("live", 1e-4), ("cached", 1e-2)):
            step = self.our_step(self.live if name == "live" else self.cached.teacher)
            mine = step.teach(batch)
            for tower in ("image", "text"):
                found[f"{name}_{tower}"] = _gap(getattr(mine, tower), teacher[f"{tower}_features"])
            piece = batch.pieces[0]
            _, terms = step.global_loss(batch, mine)(step.model(piece.pixels, None, piece.tokens))
            for term, value in expected.items():
                found[f"{name}_{term}"] = float(terms[term])
                if abs(float(terms[term]) - value) > tolerance * abs(value):
                    raise RuntimeError(f"{name}: {term} is {float(terms[term])}, expected {value}")
        for name in ("student_image", "student_text", "live_image", "live_text"):
            if found[name] > 1e-5:
                raise RuntimeError(f"{name}: embeddings differ by {found[name]}")
        return found

    def _load_teacher(self) -> Teacher:
        folder, shape = self._folder / "teacher", self.shapes["teacher"]
        with quiet():
            clip_from_open_clip(self.open_clip.teacher, shape).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        image_processor(shape.image_size).save_pretrained(folder)
        return load_hf_teacher(str(folder))

    def _build_cache(self) -> Built:
        settings = BuildSettings(
            views=self.views,
            view_count=1,
            dtype="float16",
            shard_rows=1024,
            batch_size=self.size,
            workers=0,
            max_skipped=0.0,
        )
        clock, processor = time.perf_counter(), time.process_time()
        cache, _ = build_cache(
            self._folder / "cache",
            self.pictures,
            self.live,
            settings=settings,
            progress=lambda _part, _done, _total: None,
        )
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        count = len(self.pictures)
        return Built(CachedTeacher([cache]), clock / count, processor / count)

    def _draw_batches(self, count: int) -> list[Batch]:
        dataset = StepDataset(
            [self.pictures],
            Position([len(self.pictures)], weights=[None], seed=0, batch_size=self.size),
            Captions([self.pictures], seed=0),
            Inputs(
                views=self.views,
                view_count=1,
                student=self.look,
                teachers=(self.look,),
                tokenizer=self.tokenizer,
                tokenizing={"context_length": CONTEXT, "padding": "longest"},
            ),
        )
        return [replace(dataset[step], skipped=[]) for step in range(count)]

    def _normalised(self, batch: Batch) -> Tensor:
        pixels = batch.pieces[0].pixels
        if pixels is None:
            raise RuntimeError("the batch has no pictures")
        return torch.from_numpy(self.look.normalise(pixels.numpy()))


def _shape(options: argparse.Namespace, name: str) -> Shape:
    layers, width = getattr(options, f"{name}_layers"), getattr(options, f"{name}_width")
    return Shape(
        image_layers=layers,
        image_width=width,
        text_layers=layers,
        text_width=width,
        image_size=options.image_size,
        patch_size=options.patch_size,
        embedding=options.teacher_width,
    )


def _gap(mine: Tensor, theirs: Tensor) -> float:
    return float((mine - theirs).abs().max())


def entropy(outputs: Mapping[str, Tensor]) -> Tensor:
    """Return the mean entropy of a model's distributions over the batch, in both directions."""
    logits = outputs["logit_scale"] * outputs["image_features"] @ outputs["text_features"].T
    rows = [F.log_softmax(some.double(), dim=1) for some in (logits, logits.T)]
    return torch.stack([-(row.exp() * row).sum(dim=1).mean() for row in rows]).mean()


def summarise(
    times: Mapping[str, Times], bench: Bench, options: argparse.Namespace
) -> dict[str, Any]:
    """Return medians, samples per second, and ratios with their goals."""
    clock = {name: statistics.median(some.clock) for name, some in times.items()}
    processor = {name: statistics.median(some.processor) for name, some in times.items()}
    by_clock = ratios(clock, cache=bench.size * bench.cached.clock)
    by_processor = ratios(processor, cache=bench.size * bench.cached.processor)
    return {
        **describe_run(["torch", "transformers", "timm", "accelerate", "numpy", "open_clip_torch"]),
        "threads": torch.get_num_threads(),
        "settings": {
            name: value for name, value in vars(options).items() if name not in ("out", "profile")
        },
        "tokens": bench.tokens,
        "cache_milliseconds_per_sample": 1000 * bench.cached.clock,
        "steps": {
            name: {
                "what": NAMES[name],
                "median_seconds": clock[name],
                "samples_per_second": bench.size / clock[name],
                **asdict(times[name]),
            }
            for name in times
        },
        "ratios": {
            name: {"ratio": ratio, "of_processor": by_processor[name], "goal": GOALS.get(name)}
            for name, ratio in by_clock.items()
        },
    }


def ratios(seconds: Mapping[str, float], *, cache: float) -> dict[str, float]:
    """Return the ratios of samples per second; ``cache`` is the cost of the cache per batch."""
    return {
        "d/a": seconds["a"] / seconds["d"],
        "d/b": seconds["b"] / seconds["d"],
        "c/a": seconds["a"] / seconds["c"],
        "d/a with the cache's cost": seconds["a"] / (seconds["d"] + cache / EPOCHS),
        "b/a": seconds["a"] / seconds["b"],
    }


def print_report(report: Mapping[str, Any]) -> None:
    """Print a report as the tables in docs/benchmarks.md."""
    print("| | step | ms | samples/s |\n|---|---|---:|---:|")
    for name, step in report["steps"].items():
        milliseconds, rate = 1000 * step["median_seconds"], step["samples_per_second"]
        print(f"| {name} | {step['what']} | {milliseconds:.0f} | {rate:.0f} |")
    print("\n| ratio of samples/s | wall time | processor time | goal |\n|---|---:|---:|---:|")
    for name, found in report["ratios"].items():
        goal = "" if found["goal"] is None else f"{found['goal']:.1f}"
        print(f"| {name} | {found['ratio']:.2f} | {found['of_processor']:.2f} | {goal} |")
    print(f"\ncache: {report['cache_milliseconds_per_sample']:.2f} ms/sample, over {EPOCHS} epochs")
    for name, milliseconds in report["our_step"].items():
        print(f"{name:>24} {milliseconds:8.2f} ms")


if __name__ == "__main__":
    main()
