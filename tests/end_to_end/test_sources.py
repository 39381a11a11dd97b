"""Every source of data is cached, trained on and evaluated in the same way."""

import base64
import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distill.data.open import open_source
from distill.data.sample import Source
from distill.data.tables.table import open_table
from tests.lazy import lazy_imports

with lazy_imports():
    import datasets
    import torch

    from distill.data.shards.write import ShardSettings, write_shards
    from distill.run import project
    from distill.run.pipeline import run

Recipe = Callable[..., Path]
Rows = list[dict[str, str]]
Weights = dict[str, torch.Tensor]
SAME_KEYS = ("title", "headless", "ids", "jsonl", "karpathy", "coco", "parquet")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the datasets library's cache inside of the test, and its progress bars out of it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def plain_weights() -> Weights:
    """Keep the student of the plain table, which those of its other forms must equal."""
    return {}


def section(kind: str, table: Path, folder: Path) -> dict[str, Any]:
    """Write the pictures of a table in another form, and return the section that reads it."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    folder.mkdir()
    form = {
        "title": _title,
        "headless": _headless,
        "jsonl": _jsonl,
        "karpathy": _karpathy,
        "coco": _coco,
        "parquet": _parquet,
        "embedded": _embedded,
        "ids": _ids,
        "base64": _base64,
        "single": _single,
        "shards": _shards,
        "hub": _hub,
        "folder": _folder,
        "images": _images,
    }[kind]
    found = {"kind": "table", **form(rows, table.parent, folder)}
    return found | ({"image_root": str(table.parent)} if kind in SAME_KEYS else {})


def _title(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    lines = [f"{row['image']}\t{row['caption']}\t{row['label']}" for row in rows]
    path = folder / "train.csv"
    path.write_text("\n".join(["filepath\ttitle\tlabel", *lines]) + "\n")
    return {"path": str(path)}


def _headless(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    path = folder / "train.tsv"
    path.write_text("\n".join("\t".join((r["label"], r["image"], r["caption"])) for r in rows))
    return {"path": str(path), "columns": ["label", "image", "caption"]}


def _ids(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    lines = [f"{row['image']},{row['caption']},{n // 4}" for n, row in enumerate(rows)]
    path = folder / "train.csv"
    path.write_text("\n".join(["image,caption,id", *lines]) + "\n")
    return {"path": str(path), "id_column": "id"}


def _jsonl(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    path = folder / "train.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return {"path": str(path)}


def _karpathy(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    images = [
        {"filename": row["image"], "split": "train", "sentences": [{"raw": row["caption"]}]}
        for row in rows
    ]
    path = folder / "dataset.json"
    path.write_text(json.dumps({"images": images}))
    return {"path": str(path), "split": "train"}


def _coco(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    images = [{"id": number, "file_name": row["image"]} for number, row in enumerate(rows)]
    captions = [{"image_id": n, "caption": row["caption"]} for n, row in enumerate(rows)]
    path = folder / "captions.json"
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    return {"path": str(path)}


def _parquet(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    datasets.Dataset.from_list(rows).to_parquet(str(folder / "train.parquet"))
    return {"path": str(folder / "train.parquet")}


def _dataset(rows: Rows, pictures: Path) -> Any:
    def inside(row: dict[str, str]) -> dict[str, Any]:
        return {**row, "image": {"bytes": (pictures / row["image"]).read_bytes(), "path": None}}

    data = datasets.Dataset.from_list([inside(row) for row in rows])
    return data.cast_column("image", datasets.Image())


def _embedded(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    _dataset(rows, pictures).to_parquet(str(folder / "train.parquet"))
    return {"path": str(folder / "train.parquet")}


def _hub(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    datasets.DatasetDict(train=_dataset(rows, pictures)).save_to_disk(str(folder / "copy"))
    return {"kind": "hub", "path": str(folder / "copy")}


def _base64(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    path = folder / "train.tsv"
    encoded = [base64.urlsafe_b64encode((pictures / row["image"]).read_bytes()) for row in rows]
    lines = [
        b"\t".join((row["label"].encode(), row["caption"].encode(), picture.rstrip(b"=")))
        for row, picture in zip(rows, encoded, strict=True)
    ]
    path.write_bytes(b"\r\n".join(lines))
    schema = "label:str:1,text:str:1,image:str:1"
    return {"kind": "base64", "path": str(path), "input_schema": schema}


def _single(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    path = folder / "pictures.tsv"
    encoded = [base64.b64encode((pictures / row["image"]).read_bytes()) for row in rows]
    path.write_bytes(b"\n".join(encoded))
    return {"kind": "base64", "path": str(path), "input_schema": "image:str:1"}


def _shards(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    source = open_table(pictures / "captions.csv")
    settings = ShardSettings(size=None, per_shard=20, workers=0, max_skipped=0.0)
    write_shards(source, folder / "tars", settings)
    return {"kind": "shards", "path": str(folder / "tars")}


def _folder(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    labels = sorted({row["label"] for row in rows})
    names = folder / "names.json"
    names.write_text(json.dumps({f"n{number}": label for number, label in enumerate(labels)}))
    for row in rows:
        place = folder / "data" / f"n{labels.index(row['label'])}"
        place.mkdir(parents=True, exist_ok=True)
        (place / Path(row["image"]).name).write_bytes((pictures / row["image"]).read_bytes())
    return {"kind": "folder", "path": str(folder / "data"), "classes": str(names)}


def _images(rows: Rows, pictures: Path, folder: Path) -> dict[str, Any]:
    for row in rows:
        (folder / Path(row["image"]).name).write_bytes((pictures / row["image"]).read_bytes())
    return {"kind": "images", "path": str(folder)}


SHORT = {"steps": 2, "warmup_steps": 1, "validate_every": 2}


INSIDE = ("embedded", "base64", "single", "hub", "shards", "folder", "images")
WITHOUT_CAPTIONS = ("single", "images")
WITHOUT_LABELS = (*WITHOUT_CAPTIONS, "ids", "karpathy", "coco")


@pytest.mark.parametrize("kind", [*SAME_KEYS, *INSIDE])
@pytest.mark.slow
def test_a_source_is_cached_trained_on_and_measured(
    recipe: Recipe,
    pictures: Path,
    tmp_path: Path,
    kind: str,
    weights: Callable[[Path], Weights],
    plain_weights: Weights,
) -> None:
    train = section(kind, pictures, tmp_path / "other")
    plain = {"kind": "table", "path": str(pictures)}
    changes: dict[str, Any] = {
        "losses": {"kl_divergence": 0 if kind in WITHOUT_CAPTIONS else 1},
        "evaluate": {"name": "shapes", "task": "zero_shot", "data": train},
        "train": SHORT,
    }
    if kind in WITHOUT_LABELS:
        changes["evaluate"]["data"] = plain
    # A mixture with weights, read by a worker process.
    both = {"train": [{**train, "weight": 2}, plain], "workers": 1}
    run(recipe("mixed", data=both, **changes), stages=("train",))
    if kind in WITHOUT_CAPTIONS:
        # A text tower would learn nothing.
        changes["student"] = {"text": None}
    folder = run(
        recipe("alone", data={"train": train}, **changes), stages=("cache", "train", "evaluate")
    ).path
    report = json.loads((folder / "report.json").read_text())
    assert report["sets"][0]["samples"] == 96
    if kind in SAME_KEYS:
        changes["evaluate"]["data"] = plain
        if not plain_weights:
            same = run(recipe("same", data={"train": plain}, **changes), stages=("train",))
            plain_weights.update(weights(same.path))
        mine = weights(folder)
        assert mine.keys() == plain_weights.keys()
        assert [name for name in mine if not torch.equal(mine[name], plain_weights[name])] == []


@pytest.mark.slow
def test_files_that_vanish_after_they_were_listed_are_counted(
    recipe: Recipe, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {}
    for name in ("train", "validation"):
        shutil.copytree(pictures.parent, tmp_path / name)
        tables[name] = {"kind": "table", "path": str(tmp_path / name / pictures.name)}

    def vanish(entry: Any, **more: Any) -> Source:
        source = open_source(entry, **more)
        for index in (0, 1, 2):
            image = source[index].image
            assert isinstance(image, Path)
            image.unlink()
        return source

    monkeypatch.setattr(project, "open_source", vanish)
    data = {**tables, "workers": 1, "max_skipped": 0.05}
    train = {"steps": 6, "warmup_steps": 1, "validate_every": 6, "teacher": "live"}
    path = recipe(data=data, losses={"kl_divergence": 1}, train=train)
    folder = run(path, stages=("train",)).path
    skipped = [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]
    # Validation names its file, since it is another than that of training.
    name = str(tmp_path / "validation" / pictures.name)
    assert [entry["where"].startswith(f"{name}: ") for entry in skipped] == [False] * 3 + [True] * 3
    assert all("there is no such picture" in entry["reason"] for entry in skipped)
    # Again: now 3 are missing when it is listed, and 3 more vanish then.
    folder = run(path, stages=("evaluate",)).path
    report = json.loads((folder / "report.json").read_text())
    assert [entry["samples"] for entry in report["sets"]] == [90] * len(report["sets"])
