"""A bundle at work: pictures and texts go in, embeddings and probabilities come out."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from . import manifest as manifest_file
from .decode import ImageSource, decode, describe
from .errors import BundleError, DataError, RecipeError
from .label_bank import LabelBank, checked_labels
from .manifest import ImagePart, Manifest, TextPart, check_templates
from .session import check_graph, open_session, run_graph
from .tokenizer import Tokenizer


class EdgeModel:
    """A dual encoder from a bundle, on numpy, Pillow, tokenizers and onnxruntime alone.

    Made by ``EdgeModel.load``. Several threads may use one at the same time.

    Attributes:
        manifest: What the bundle says about itself.
        folder: Where it was loaded from.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, threads: int | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        image, text = manifest.image, manifest.text
        self._image = None if image is None else _image_session(folder, image, threads)
        self._text = None if text is None else _text_session(folder, text, threads)
        self._tokenizer = None if text is None else Tokenizer(folder / text.tokenizer, text)
        bank = manifest.labels
        self._bank = (
            None if bank is None else LabelBank(folder / bank.file, bank, width=manifest.width)
        )
        self._labels: tuple[tuple[Sequence[str], Sequence[str]], np.ndarray] | None = None

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, threads: int | None = None) -> "EdgeModel":
        """Load a bundle that ``clip-distill export`` has written.

        Args:
            folder: The bundle.
            threads: How many threads a graph may use; ``None`` leaves it to onnxruntime.

        Raises:
            BundleError: The bundle is missing, incomplete or damaged.
        """
        path = Path(folder)
        return cls(path, manifest_file.read(path), threads=threads)

    @property
    def width(self) -> int:
        """Width of the embeddings."""
        return self.manifest.width

    @property
    def logit_scale(self) -> float:
        """What similarities are multiplied by before the softmax."""
        return self.manifest.logit_scale

    @property
    def logit_bias(self) -> float:
        """What is added to scaled similarities."""
        return self.manifest.logit_bias

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the bundle carries, embedded; none where it carries none."""
        return () if self._bank is None else self._bank.names

    def classify(
        self,
        image: ImageSource,
        labels: Sequence[str] | None = None,
        *,
        templates: Sequence[str] | None = None,
    ) -> list[tuple[str, float]]:
        """Say which label fits a picture best.

        Args:
            image: A path, the bytes of a file, a Pillow image or RGB pixels as uint8 ``[H, W, 3]``.
            labels: The candidates, each once; ``None`` takes those that the bundle carries.
            templates: Prompts with ``{}`` for the label; ``None`` takes the bundle's.

        Returns:
            Every label with its probability, best first; the probabilities add up to 1.

        Raises:
            BundleError: The bundle lacks a tower or the labels that this needs.
            DataError: The picture cannot be read.
            RecipeError: The labels or templates are none that can be used.
        """
        if self._image is None:
            raise BundleError(f"{self.folder}: classifying needs an image tower, and it has none")
        names = self._candidates(labels)
        label_embeddings = self.embed_labels(names, templates=templates)
        cosines = (self.embed_images([image])[0] @ label_embeddings.T).astype(np.float64)
        logits = self.logit_scale * cosines + self.logit_bias
        probabilities = _softmax(logits)
        # By logits, since small probabilities all become 0.
        order = np.argsort(-logits, kind="stable")
        return [(names[index], float(probabilities[index])) for index in order]

    def embed_labels(
        self, labels: Sequence[str] | None = None, *, templates: Sequence[str] | None = None
    ) -> np.ndarray:
        """Embed labels, each as the normalised mean over its prompts; float32 ``[N, D]``.

        Labels that the bundle carries are looked up, and need no text tower.

        Args:
            labels: The labels, each once; ``None`` takes those that the bundle carries.
            templates: Prompts with ``{}`` for the label; ``None`` takes the bundle's.

        Raises:
            BundleError: The bundle has no text tower, and does not carry all of the labels.
            RecipeError: The labels or templates are none that can be used.
        """
        names = self._candidates(labels)
        prompts = _checked_templates(templates, self.manifest.templates)
        if self._bank is not None and prompts == self.manifest.templates:
            rows = self._bank.rows(names)
            if rows is not None:
                return rows
        self._need_texts(names, asked=templates)
        key = (names, prompts)
        # One list of labels usually meets many pictures.
        cached = self._labels
        if cached is None or cached[0] != key:
            texts = [prompt.replace("{}", label) for label in key[0] for prompt in key[1]]
            embeddings = self.embed_texts(texts).reshape(len(key[0]), len(key[1]), -1)
            cached = (key, _normalised(embeddings.mean(axis=1)))
            self._labels = cached
        return cached[1].copy()

    def embed_images(self, images: Iterable[ImageSource], *, batch_size: int = 32) -> np.ndarray:
        """Embed pictures; float32 ``[N, D]``, L2-normalised, in the order given.

        Args:
            images: Paths, bytes of files, Pillow images or RGB pixels as uint8 ``[H, W, 3]``; a
                generator is read batch by batch.
            batch_size: How many go through the graph at once.

        Raises:
            BundleError: The bundle has no image tower.
            DataError: A picture cannot be read.
        """
        part, session = self.manifest.image, self._image
        if part is None or session is None:
            raise BundleError(f"{self.folder}: the bundle has no image tower, it embeds texts only")
        single = isinstance(images, str | bytes | os.PathLike | Image.Image)
        if single or (isinstance(images, np.ndarray) and images.ndim != 4):
            raise DataError("images: found a single picture, expected several; put it in a list")
        rows = [np.empty((0, part.width), np.float32)]
        for batch in _batches(images, batch_size):
            pixels = np.stack([_pixels(part, image) for image in batch])
            rows.append(
                run_graph(session, self.folder / part.file, part.output, {part.input: pixels})
            )
        return np.concatenate(rows)

    def embed_texts(self, texts: Iterable[str], *, batch_size: int = 64) -> np.ndarray:
        """Embed texts as they are; float32 ``[N, D]``, L2-normalised, in the order given.

        Args:
            texts: The texts; what is longer than the context length is cut.
            batch_size: How many go through the graph at once.

        Raises:
            BundleError: The bundle has no text tower.
            DataError: Something else than texts was given.
        """
        part, session = self.manifest.text, self._text
        if part is None or session is None or self._tokenizer is None:
            raise BundleError(f"{self.folder}: the bundle has no text tower, it embeds images only")
        if isinstance(texts, str):
            raise DataError("texts: found a single text, expected several; put it in a list")
        rows = [np.empty((0, part.width), np.float32)]
        for batch in _batches(texts, batch_size):
            if wrong := [text for text in batch if not isinstance(text, str)]:
                raise DataError(f"texts: found a {type(wrong[0]).__name__}, expected texts only")
            tokens = self._tokenizer(batch)
            inputs = dict(zip(part.inputs, tokens.values(), strict=True))
            rows.append(run_graph(session, self.folder / part.file, part.output, inputs))
        return np.concatenate(rows)

    def _candidates(self, labels: Sequence[str] | None) -> tuple[str, ...]:
        if labels is not None:
            return checked_labels(labels)
        if self._bank is None:
            raise BundleError(
                f"{self.folder}: the bundle carries no labels; give labels, or export the student "
                "again with --labels"
            )
        return self._bank.names

    def _need_texts(self, labels: Sequence[str], *, asked: Sequence[str] | None) -> None:
        """Say why labels cannot be embedded, where there is no text tower."""
        if self._text is not None:
            return
        if self._bank is None:
            raise BundleError(
                f"{self.folder}: the bundle has no text tower, and classifying needs a text tower "
                "or labels that the bundle carries; export the student again with --labels"
            )
        if asked is not None and self._bank.rows(labels) is not None:
            raise BundleError(
                f"{self.folder}: other templates need a text tower, and it has none; leave them "
                "out, or export the student again with them"
            )
        raise BundleError(
            f"{self.folder}: without a text tower it knows only the {len(self._bank.names)} labels "
            f"that it carries, and {self._bank.explain(labels)} is none of them; take some of "
            "those, or export the student again with --labels"
        )


def _image_session(
    folder: Path, part: ImagePart, threads: int | None
) -> onnxruntime.InferenceSession:
    session = open_session(folder / part.file, threads=threads)
    height, width = part.preprocessing.size
    expected = {part.input: ("tensor(uint8)", [height, width, 3])}
    check_graph(session, folder / part.file, expected, (part.output, part.width))
    return session


def _text_session(
    folder: Path, part: TextPart, threads: int | None
) -> onnxruntime.InferenceSession:
    session = open_session(folder / part.file, threads=threads)
    expected: dict[str, tuple[str, list[int]]] = dict.fromkeys(part.inputs, ("tensor(int64)", []))
    check_graph(session, folder / part.file, expected, (part.output, part.width))
    return session


def _pixels(part: ImagePart, source: ImageSource) -> np.ndarray:
    image = decode(source)
    try:
        return part.preprocessing.pixels(image)
    except DataError as error:
        raise DataError(f"{describe(source)}: {error}") from error


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    if size < 1:
        raise RecipeError(f"batch_size: found {size}, expected at least 1")
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _checked_templates(
    templates: Sequence[str] | None, default: tuple[str, ...]
) -> tuple[str, ...]:
    if templates is None:
        return default
    try:
        return check_templates(templates, "templates")
    except BundleError as error:
        raise RecipeError(str(error)) from error


def _normalised(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12), np.float32)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max())
    return np.asarray(exponentials / exponentials.sum())
