"""Measure how rounding the teacher's embeddings to float16 or int8 affects real photographs.

    python -m benchmarks.cache_precision --data DIR --teacher DIR

The data folder holds ``flickr8k/captions_val.csv``, its pictures in ``flickr8k/images``, and class
folders in ``caltech33/val``. The teacher embeds them once, in float32. The embeddings are then
stored in the cache's own files in each precision and read back. The student of the loss is the
teacher plus noise, so the two differ as a half-trained student does.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.basis.progress import make_console, progress_bar
from distill.data.folder import open_folder
from distill.data.sample import Sample, open_image
from distill.data.tables.table import open_table
from distill.evaluate.encoder import TeacherEncoder
from distill.evaluate.evaluation_set import EvaluationSet
from distill.evaluate.zero_shot import label_pictures
from distill.labels.label_set import LabelSet
from distill.losses.distributions import kl_divergence
from distill.losses.embeddings import Embeddings
from distill.teacher.cache.rows import Rows, StoredAs, row_digests, save_shard
from distill.teacher.hf import load_hf_teacher
from distill.teacher.protocol import Teacher

PRECISIONS: tuple[StoredAs, ...] = ("float32", "float16", "int8")
TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "a {}.")
BATCH = 64
NOISE = 1.0  # relative to embeddings of length 1; the cosine is 0.71
SEEDS = 5
COLUMNS = {
    "bytes": "bytes a vector",
    "worst_cosine": "worst 1 − cos",
    "kl_from_exact": "KL(exact ‖ stored)",
    "kl_relative_error": "error of the KL loss",
    "gradient_angle": "1 − cos of its gradient",
    "zero_shot_top1": "zero-shot top-1",
    "zero_shot_agreement": "same class",
    "image_to_text_agreement": "i→t same first",
    "text_to_image_agreement": "t→i same first",
}


@dataclass(frozen=True)
class Exact:
    """The teacher's float32 embeddings ``[N, D]`` of everything that is measured."""

    images: Tensor
    captions: Tensor
    first_caption: Tensor  # for each picture, the row of its first caption
    photographs: Tensor
    classes: Tensor
    labels: Tensor
    scale: float


@dataclass(frozen=True)
class Row:
    """The figures of one precision. Shares are fractions of 1, and errors are relative."""

    precision: str
    bytes: int
    worst_cosine: float
    kl_from_exact: float
    kl_relative_error: float
    gradient_angle: float
    zero_shot_top1: float
    zero_shot_agreement: float
    image_to_text_agreement: float
    text_to_image_agreement: float


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the photographs")
    parser.add_argument("--teacher", type=Path, required=True, help="folder with the teacher")
    parser.add_argument("--out", type=Path, default=Path("runs/cache_precision.json"))
    options = parser.parse_args()
    exact = embed(options.data, load_hf_teacher(str(options.teacher)))
    rows = [measure(exact, precision) for precision in PRECISIONS]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    sys.stdout.write(table(rows, exact))
    make_console().print(f"the numbers are in {options.out}")


def embed(data: Path, teacher: Teacher) -> Exact:
    """Embed photographs, captions and classes with the teacher, in float32."""
    flickr = open_table(str(data / "flickr8k" / "captions_val.csv"))
    caltech = open_folder(str(data / "caltech33" / "val"))
    pairs = [flickr[number] for number in range(len(flickr))]
    captions = [text for sample in pairs for text in sample.captions]
    counts = [len(sample.captions) for sample in pairs]
    names, labels = label_pictures(EvaluationSet("caltech33", "zero_shot", caltech))
    classes = LabelSet(tuple(names), TEMPLATES).embed(TeacherEncoder(teacher).encode_texts)
    return Exact(
        images=_images(pairs, teacher),
        captions=torch.cat(
            [
                teacher.encode_texts(captions[first : first + BATCH])
                for first in range(0, len(captions), BATCH)
            ]
        ),
        first_caption=torch.tensor(np.concatenate([[0], np.cumsum(counts)[:-1]])),
        photographs=_images([caltech[number] for number in labels], teacher),
        classes=torch.from_numpy(np.asarray(classes)),
        labels=torch.tensor(list(labels.values())),
        scale=teacher.logit_scale,
    )


def _images(samples: list[Sample], teacher: Teacher) -> Tensor:
    parts = []
    with progress_bar("embedding pictures", len(samples)) as bar:
        for first in range(0, len(samples), BATCH):
            some = [open_image(sample) for sample in samples[first : first + BATCH]]
            pixels = np.stack([teacher.preprocessing.pixels(image) for image in some])
            parts.append(teacher.encode_images(torch.from_numpy(pixels)).cpu())
            bar.update(first + len(some))
    return torch.cat(parts)


def measure(exact: Exact, precision: StoredAs) -> Row:
    """Store all embeddings in a precision, read them back, and compare."""
    images, size = stored(exact.images, precision)
    captions, _ = stored(exact.captions, precision)
    photographs, _ = stored(exact.photographs, precision)
    rounded = teacher_of(images, captions, exact)
    true = teacher_of(exact.images, exact.captions, exact)
    errors, angles = [], []
    for seed in range(SEEDS):
        true_value, true_gradient = loss_and_gradient(true, true, seed)
        value, gradient = loss_and_gradient(true, rounded, seed)
        errors.append(abs(value - true_value) / true_value)
        angles.append(1 - torch.cosine_similarity(gradient, true_gradient, dim=0).item())
    top = nearest(photographs, exact.classes)
    return Row(
        precision=precision,
        bytes=size,
        worst_cosine=(1 - torch.cosine_similarity(images.double(), exact.images.double()))
        .max()
        .item(),
        kl_from_exact=kl_divergence(rounded, true).item(),
        kl_relative_error=float(np.mean(errors)),
        gradient_angle=float(np.mean(angles)),
        zero_shot_top1=share(top == exact.labels),
        zero_shot_agreement=share(top == nearest(exact.photographs, exact.classes)),
        image_to_text_agreement=share(
            nearest(images, captions) == nearest(exact.images, exact.captions)
        ),
        text_to_image_agreement=share(
            nearest(captions, images) == nearest(exact.captions, exact.images)
        ),
    )


def stored(embeddings: Tensor, precision: StoredAs) -> tuple[Tensor, int]:
    """Return embeddings as a cache returns them, and the bytes per vector."""
    keys = row_digests(str(number) for number in range(len(embeddings)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions-00000.npy"
        padded = np.concatenate([keys, np.zeros((len(keys), 1), np.uint64)], axis=1)
        save_shard(path, padded, embeddings.numpy(), precision)
        entry = {"file": path.name, "rows": len(embeddings)}
        rows = Rows(Path(folder), [entry], embeddings.shape[1])
        read = rows.take(rows.find(keys))
    item = {"float32": 4, "float16": 2, "int8": 1}[precision]
    return read, embeddings.shape[1] * item + (4 if precision == "int8" else 0)


def teacher_of(images: Tensor, captions: Tensor, exact: Exact) -> Embeddings:
    """Return each picture with its first caption, in float64 to keep rounding out of the loss."""
    return Embeddings(
        image=images.double(),
        text=captions[exact.first_caption].double(),
        scale=torch.tensor(exact.scale, dtype=torch.float64),
    )


def loss_and_gradient(start: Embeddings, teacher: Embeddings, seed: int) -> tuple[float, Tensor]:
    """Return the KL loss of a student, and its gradient with respect to the student's embeddings.

    The student is ``start`` plus noise, and does not depend on the teacher.
    """
    towers = []
    for number, tower in enumerate((start.image, start.text)):
        if tower is None:
            raise ValueError("the student needs both towers")
        generator = torch.Generator().manual_seed(2 * seed + number)
        noise = torch.randn(tower.shape, generator=generator, dtype=tower.dtype)
        towers.append((tower + noise * NOISE / tower.shape[1] ** 0.5).requires_grad_())
    image, text = (torch.nn.functional.normalize(tower, dim=1) for tower in towers)
    loss = kl_divergence(Embeddings(image, text, start.scale), teacher)
    gradients = torch.autograd.grad(loss, towers)
    return loss.item(), torch.cat([gradient.flatten() for gradient in gradients])


def nearest(queries: Tensor, candidates: Tensor) -> Tensor:
    """Return, for each query, the candidate with the largest dot product."""
    return (queries.double() @ candidates.double().T).argmax(dim=1)


def share(hits: Tensor) -> float:
    """Return the fraction of hits."""
    return hits.double().mean().item()


def table(rows: list[Row], exact: Exact) -> str:
    """Return a Markdown table with date and command."""
    today, cores = datetime.date.today(), f"{os.cpu_count()} cores ({platform.machine()})"
    counts = (
        f"{len(exact.images)} pictures and {len(exact.captions)} captions of Flickr8k, "
        f"{len(exact.photographs)} pictures of {len(exact.classes)} classes, width "
        f"{exact.images.shape[1]}, logit scale\n{exact.scale:.1f}."
    )
    lines = [
        f"{today}, {cores}:",
        "",
        f"    python {shlex.join(sys.argv)}".replace(str(Path.cwd()) + "/", ""),
        "",
        counts,
        "",
        "| precision | " + " | ".join(COLUMNS.values()) + " |",
        "|---|" + "---:|" * len(COLUMNS),
    ]
    for row in rows:
        values = asdict(row)
        cells = [_cell(name, values[name]) for name in COLUMNS]
        lines.append(f"| {row.precision} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(name: str, value: float) -> str:
    if name == "bytes":
        return f"{value:,}"
    if name.startswith("zero_shot") or name.endswith("agreement"):
        return f"{100 * value:.2f} %"
    return f"{value:.1e}"


if __name__ == "__main__":
    main()
