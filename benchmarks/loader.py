"""Time the training loader against a plain loop over the same pictures.

    python -m benchmarks.loader --out runs/loader.json

The plain loop is ``Image.open(path).convert("RGB").resize((size, size))``. It runs in as many
processes as our loader has workers, each with its share of the files, and passes its results
nowhere. Our loader is the one that feeds training with a cached teacher, without the lookup of
embeddings: ``batches`` over a ``StepDataset``. It orders samples, draws the crop at the student's
size, picks captions, tokenizes, collates in the workers, and sends batches to this process. Neither
side normalises pixels; the training step does that.

- ``crops``: the default views. A crop is 0.7 to 1 of a picture, so its resize reads fewer pixels
  than the plain loop's.
- ``whole``: every picture resized to a square. These are exactly the plain loop's pixels, which the
  script checks before it times anything.
- ``draft``: the crops, with JPEGs decoded at a half, quarter or eighth of their size if the crops
  need no more (``views.draft``).

The loaders take turns. Each runs right after the plain loop and is compared with that run, so other
load on the machine affects both. Starting the processes counts. Processor time is the sum over all
processes.
"""

import argparse
import io
import multiprocessing
import resource
import statistics
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoTokenizer

import distill.demo
from benchmarks.towers import describe_run, write_json
from distill.data.folder import open_folder
from distill.data.order.position import Position
from distill.data.pairs import Captions
from distill.data.pictures import is_picture, walk
from distill.data.sample import Source, extras_of
from distill.data.shards.source import open_shards
from distill.data.shards.write import ShardSettings, write_shards
from distill.data.tables.base64_lines import open_base64
from distill.data.tables.table import open_table
from distill.data.views import ViewSettings
from distill.train.batches import Inputs, StepDataset, batches
from export.runtime.preprocess import Preprocessing

FORMS = ("folder", "table", "base64", "shards")
WAYS = ("crops", "whole", "draft")
BATCH, PER_SHARD = 64, 64
GOAL = 0.9
CROPS = ViewSettings(
    seed=0, kind="random", scale=(0.7, 1.0), ratio=(0.75, 4 / 3), flip=False, color_jitter=0.0
)


@dataclass(frozen=True)
class Seconds:
    """A moment or a duration, in wall time and in processor time of all processes."""

    clock: float
    processor: float

    def since(self, earlier: "Seconds") -> "Seconds":
        """Return the time since an earlier moment."""
        return Seconds(self.clock - earlier.clock, self.processor - earlier.processor)


@dataclass(frozen=True)
class Turn:
    """A run of the plain loop, and the run of our loader right after it."""

    plain: Seconds
    ours: Seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results; write them to a file if ``--out`` is given."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures" / "all"
        pictures.mkdir(parents=True)
        if options.data is None:
            draw_pictures(pictures, options.pictures, options.picture_size)
        else:
            link_pictures(pictures, options.data, options.pictures)
        files = sorted(pictures.iterdir())
        sources = {form: write_form(form, files, Path(folder)) for form in FORMS}
        loaders = {
            f"{form}, {way}": make_loader(source, way, options.size)
            for way in options.ways
            for form, source in sources.items()
        }
        check_pixels(sources, files, options.size)
        report = summarise(take_turns(files, loaders, options), files, options)
    print_report(report)
    if options.out is not None:
        write_json(options.out, report)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of pictures; default: generated pictures")
    parser.add_argument("--pictures", type=int, default=256, help="number of pictures")
    parser.add_argument(
        "--passes", type=int, default=4, help="passes over the pictures in each run"
    )
    parser.add_argument("--picture-size", type=int, nargs=2, default=(640, 480), metavar=("W", "H"))
    parser.add_argument("--size", type=int, default=224, help="size of the student's input")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--out", type=Path, help="JSON file for all measurements")
    options = parser.parse_args(arguments)
    if options.pictures < BATCH or min(options.processes, options.rounds, options.passes) < 1:
        parser.error(f"--pictures must be at least {BATCH}, --processes, --rounds and --passes 1")
    if options.data is not None and not options.data.is_dir():
        parser.error(f"--data {options.data}: the folder does not exist")
    return options


def size_of(path: Path) -> tuple[int, int]:
    """Return width and height of a picture without decoding it."""
    with Image.open(path) as image:
        return image.size


def draw_pictures(folder: Path, count: int, size: Sequence[int]) -> None:
    """Write JPEGs of quality 85 with detail at every scale, as in photographs."""
    draw = np.random.Generator(np.random.Philox(0))
    width, height = size
    for number in range(count - count % BATCH):
        pixels = np.full((height, width, 3), 128.0)
        for cells in (3, 8, 24, 70, 200):
            noise = draw.integers(0, 256, (cells * height // width + 1, cells, 3), np.uint8)
            spread = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
            pixels += (np.asarray(spread) - 128.0) * 1.5 / cells**0.5
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        picture.save(folder / f"{number:06d}.jpg", quality=85)


def link_pictures(folder: Path, data: Path, count: int) -> None:
    """Link whole batches of pictures from ``data`` in ``folder``.

    Duplicates are left out, because equal base64 lines make one sample.
    """
    every = [data / name for name in sorted(walk(data)) if is_picture(name)]
    different: dict[bytes, Path] = {}
    for path in every[: 2 * count]:
        different.setdefault(path.read_bytes(), path)
    found = list(different.values())[:count]
    if len(found) < BATCH:
        raise SystemExit(
            f"--data {data}: found {len(found)} pictures, but at least {BATCH} are needed"
        )
    for number, path in enumerate(found[: len(found) - len(found) % BATCH]):
        (folder / f"{number:06d}{path.suffix.lower()}").symlink_to(path.absolute())


def write_form(form: str, files: Sequence[Path], folder: Path) -> Source:
    """Write the pictures in one form of data, and open them as a source."""
    match form:
        case "folder":
            return open_folder(files[0].parent.parent)
        case "table":
            rows = [f"{file.name},{caption(number)}" for number, file in enumerate(files)]
            table = folder / "pairs.csv"
            table.write_text("\n".join(["image,caption", *rows]) + "\n")
            return open_table(table, image_root=str(files[0].parent))
        case "base64":
            lines = folder / "pairs.tsv"
            with lines.open("wb") as out:
                for number, file in enumerate(files):
                    out.write(f"{caption(number)}\t".encode() + b64encode(file.read_bytes()))
                    out.write(b"\n")
            return open_base64(lines)
    settings = ShardSettings(size=None, per_shard=PER_SHARD, workers=0, max_skipped=0.0)
    write_shards(write_form("table", files, folder), folder / "shards", settings)
    return open_shards(str(folder / "shards"))


def caption(number: int) -> str:
    """Return a unique caption of usual length."""
    return f"a photo of two dogs that run after ball {number} on the grass of a park"


def make_loader(source: Source, way: str, size: int) -> Callable[[range, int], int]:
    """Return a function that reads epochs and returns the number of pictures."""
    look = square(size)
    views = replace(CROPS, kind="center") if way == "whole" else CROPS
    if way == "draft":
        views = replace(views, draft=views.draft_for([look]))
    position = Position(
        [len(source)],
        weights=[None],
        seed=0,
        batch_size=BATCH,
        shards=[extras_of(source).shard_lengths],
    )
    teacher = Path(distill.demo.__path__[0]) / "teacher"
    dataset = StepDataset(
        [source],
        position,
        Captions([source], seed=0),
        Inputs(
            views=views,
            view_count=4,
            student=look,
            tokenizer=AutoTokenizer.from_pretrained(teacher),
            tokenizing={"context_length": 32, "padding": "longest"},
        ),
    )
    steps = position.steps_per_epoch

    def read(epochs: range, processes: int) -> int:
        asked = range(epochs.start * steps, epochs.stop * steps)
        found = batches(dataset, asked, workers=processes, pin=False)
        return sum(len(batch.keys) for batch in found)

    return read


def square(size: int) -> Preprocessing:
    """Return the preprocessing that matches the plain loop."""
    return Preprocessing(
        size=(size, size),
        resize="square",
        resize_to=None,
        crop=False,
        crop_offset="floor",
        resample="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def plain_loop(files: Sequence[Path], size: int) -> None:
    """Open, convert and resize pictures."""
    for file in files:
        Image.open(file).convert("RGB").resize((size, size))


def plain_loops(files: Sequence[Path], size: int, processes: int) -> None:
    """Run the plain loop in several processes, each with its share of the files."""
    shares = [files[number::processes] for number in range(processes)]
    running = [
        multiprocessing.Process(target=plain_loop, args=(share, size), daemon=True)
        for share in shares
    ]
    for process in running:
        process.start()
    for process in running:
        process.join()
        if process.exitcode:
            raise RuntimeError("the plain loop could not read a picture")


def check_pixels(sources: Mapping[str, Source], files: Sequence[Path], size: int) -> None:
    """Check that every form returns the plain loop's pixels if views are whole pictures.

    Raises:
        RuntimeError: If a form returns other pixels.
    """
    look = square(size)
    for form, source in sources.items():
        for number, file in enumerate(files[:8]):
            image = source[number].image
            content = image.read_bytes() if isinstance(image, Path) else image
            content = content if isinstance(content, bytes) else content.read()
            mine = look.pixels(Image.open(io.BytesIO(content)).convert("RGB"))
            plain = np.asarray(Image.open(file).convert("RGB").resize((size, size)))
            if not np.array_equal(mine, plain):
                raise RuntimeError(f"{form}: the pixels of {file} differ from the plain loop's")


def take_turns(
    files: Sequence[Path],
    loaders: Mapping[str, Callable[[range, int], int]],
    options: argparse.Namespace,
) -> dict[str, list[Turn]]:
    """Run each loader in turn, right after the plain loop; the first round does not count."""
    turns: dict[str, list[Turn]] = {name: [] for name in loaders}
    every = [file for _ in range(options.passes) for file in files]
    for number in range(options.rounds + 1):
        first = number * options.passes
        for name, read in loaders.items():
            began = now()
            plain_loops(every, options.size, options.processes)
            between = now()
            if read(range(first, first + options.passes), options.processes) != len(every):
                raise RuntimeError(
                    f"{name}: an epoch and the plain loop differ in their number of pictures"
                )
            if number:
                turns[name].append(Turn(between.since(began), now().since(between)))
    return turns


def now() -> Seconds:
    """Return wall time and the processor time of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Seconds(time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used))


def summarise(
    turns: Mapping[str, Sequence[Turn]], files: Sequence[Path], options: argparse.Namespace
) -> dict[str, Any]:
    """Return images per second and their ratios to the plain loop, as medians and quartiles."""
    results, count = {}, options.passes * len(files)
    for name, of_name in turns.items():
        by_clock = [turn.plain.clock / turn.ours.clock for turn in of_name]
        results[name] = {
            "images_per_second": rate(count, [turn.ours for turn in of_name]),
            "plain_images_per_second": rate(count, [turn.plain for turn in of_name]),
            "ratio": statistics.median(by_clock),
            "quartiles": quartiles(by_clock),
            "ratio_of_processor": statistics.median(
                turn.plain.processor / turn.ours.processor for turn in of_name
            ),
            "turns": [asdict(turn) for turn in of_name],
        }
    widths = [size_of(file) for file in files[:BATCH]]
    return {
        **describe_run(["torch", "pillow", "numpy", "transformers"]),
        "settings": {
            **{name: value for name, value in vars(options).items() if name not in ("out", "data")},
            "data": None if options.data is None else str(options.data),
        },
        "files": len(files),
        "median_bytes": statistics.median(file.stat().st_size for file in files),
        "median_size": [statistics.median(one[axis] for one in widths) for axis in (0, 1)],
        "goal": GOAL,
        "results": results,
    }


def rate(count: int, seconds: Sequence[Seconds]) -> float:
    """Return the median of images per second."""
    return count / statistics.median(one.clock for one in seconds)


def quartiles(values: Sequence[float]) -> list[float]:
    """Return the first and the third quartile."""
    return [float(value) for value in np.quantile(values, [0.25, 0.75])]


def print_report(report: Mapping[str, Any]) -> None:
    """Print a report as the table in docs/benchmarks.md."""
    width, height = report["median_size"]
    print(
        f"{report['files']} pictures of {width:.0f} x {height:.0f}, "
        f"{report['median_bytes'] / 1000:.0f} kB; {report['settings']['processes']} processes\n"
    )
    print("| | images/s | plain loop | ratio | quartiles | ratio of processor time |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, found in report["results"].items():
        low, high = found["quartiles"]
        print(
            f"| {name} | {found['images_per_second']:.0f} | "
            f"{found['plain_images_per_second']:.0f} | {found['ratio']:.2f} | "
            f"{low:.2f}–{high:.2f} | {found['ratio_of_processor']:.2f} |"
        )


if __name__ == "__main__":
    main()
