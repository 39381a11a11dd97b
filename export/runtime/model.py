"""Run a bundle: turn pictures and texts into embeddings and probabilities."""

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
    """A dual encoder that runs from a bundle, without torch.

    Create one with ``EdgeModel.load``. Several threads may share it.

    Attributes:
        manifest: What the bundle says about itself.
        folder: The folder that it was loaded from.

    Examples:
        >>> from export.runtime import EdgeModel
        >>> model = EdgeModel.load("runs/mine/bundle")
        >>> images = model.embed_images(["photo.jpg"])
        >>> texts = model.embed_texts(["a red circle", "a blue square"])
        >>> cosines = images @ texts.T
        >>> cosines.shape
        (1, 2)
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
        """Load a bundle that ``clip-distill export`` wrote.

        Args:
            folder: The bundle.
            threads: Number of threads that each graph may use; ``None`` leaves it to onnxruntime.

        Raises:
            BundleError: The bundle is missing, incomplete or damaged.
            RecipeError: ``threads`` is less than 1.
        """
        path = Path(folder)
        return cls(path, manifest_file.read(path), threads=threads)

    @property
    def width(self) -> int:
        """Width ``D`` of the embeddings."""
        return self.manifest.width

    @property
    def logit_scale(self) -> float:
        """Factor for cosine similarities before the softmax."""
        return self.manifest.logit_scale

    @property
    def logit_bias(self) -> float:
        """Added to the scaled similarities; 0 except for SigLIP."""
        return self.manifest.logit_bias

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the bundle carries; empty if it carries none."""
        return () if self._bank is None else self._bank.names

    def classify(
        self,
        image: ImageSource,
        labels: Sequence[str] | None = None,
        *,
        templates: Sequence[str] | None = None,
    ) -> list[tuple[str, float]]:
        """Rank labels by how well they fit a picture.

        Args:
            image: A path, the bytes of a file, a Pillow image or RGB pixels as uint8 ``[H, W, 3]``.
            labels: The candidates, each once; ``None`` takes the labels that the bundle carries.
            templates: Prompts with ``{}`` for the label; ``None`` takes the bundle's.

        Returns:
            Every label with its probability, best first. The probabilities add up to 1.

        Raises:
            BundleError: The bundle lacks a tower or the labels that this needs.
            DataError: The picture cannot be read.
            RecipeError: The labels or the templates are invalid.

        Examples:
            >>> from export.runtime import EdgeModel
            >>> model = EdgeModel.load("runs/mine/bundle")
            >>> ranking = model.classify("photo.jpg", ["red", "blue"])
            >>> label, probability = ranking[0]
            >>> label
            'red'
        """
        if self._image is None:
            raise BundleError(
                f"{self.folder}: classifying needs an image tower, and this bundle has none"
            )
        names = self._candidates(labels)
        label_embeddings = self.embed_labels(names, templates=templates)
        cosines = (self.embed_images([image])[0] @ label_embeddings.T).astype(np.float64)
        logits = self.logit_scale * cosines + self.logit_bias
        probabilities = _softmax(logits)
        # Sort by logits, since small probabilities underflow to 0.
        order = np.argsort(-logits, kind="stable")
        return [(names[index], float(probabilities[index])) for index in order]

    def embed_labels(
        self, labels: Sequence[str] | None = None, *, templates: Sequence[str] | None = None
    ) -> np.ndarray:
        """Embed labels, each as the normalised mean over its prompts.

        Labels that the bundle carries are looked up and need no text tower.

        Args:
            labels: The labels, each once; ``None`` takes the labels that the bundle carries.
            templates: Prompts with ``{}`` for the label; ``None`` takes the bundle's.

        Returns:
            L2-normalised embeddings, float32 ``[N, D]``, in the order of the labels.

        Raises:
            BundleError: The bundle has no text tower and does not carry all of the labels.
            RecipeError: The labels or the templates are invalid.

        Examples:
            >>> from export.runtime import EdgeModel
            >>> model = EdgeModel.load("runs/mine/bundle")
            >>> labels = model.embed_labels(["red", "blue"], templates=["a {} picture"])
            >>> labels.shape == (2, model.width)
            True
        """
        names = self._candidates(labels)
        prompts = _checked_templates(templates, self.manifest.templates)
        if self._bank is not None and prompts == self.manifest.templates:
            rows = self._bank.rows(names)
            if rows is not None:
                return rows
        self._need_texts(names, asked=templates)
        key = (names, prompts)
        # Usually the same labels are used for many pictures.
        cached = self._labels
        if cached is None or cached[0] != key:
            texts = [prompt.replace("{}", label) for label in key[0] for prompt in key[1]]
            embeddings = self.embed_texts(texts).reshape(len(key[0]), len(key[1]), -1)
            cached = (key, _normalised(embeddings.mean(axis=1)))
            self._labels = cached
        return cached[1].copy()

    def embed_images(self, images: Iterable[ImageSource], *, batch_size: int = 32) -> np.ndarray:
        """Embed pictures.

        Args:
            images: Paths, bytes of files, Pillow images or RGB pixels as uint8 ``[H, W, 3]``. An
                iterator is read batch by batch.
            batch_size: Number of pictures that go through the graph at once.

        Returns:
            L2-normalised embeddings, float32 ``[N, D]``, in the order of the pictures.

        Raises:
            BundleError: The bundle has no image tower.
            DataError: A picture cannot be read, or ``images`` is a single picture.
            RecipeError: ``batch_size`` is less than 1.

        Examples:
            >>> from export.runtime import EdgeModel
            >>> model = EdgeModel.load("runs/mine/bundle")
            >>> model.embed_images(["photo.jpg"]).shape == (1, model.width)
            True
        """
        part, session = self.manifest.image, self._image
        if part is None or session is None:
            raise BundleError(f"{self.folder}: the bundle has no image tower; it embeds texts only")
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
        """Embed texts as they are, without a template.

        Args:
            texts: The texts; longer ones are cut to the context length. An iterator is read batch
                by batch.
            batch_size: Number of texts that go through the graph at once.

        Returns:
            L2-normalised embeddings, float32 ``[N, D]``, in the order of the texts.

        Raises:
            BundleError: The bundle has no text tower.
            DataError: An item is not a text, or ``texts`` is a single text.
            RecipeError: ``batch_size`` is less than 1.

        Examples:
            >>> from export.runtime import EdgeModel
            >>> model = EdgeModel.load("runs/mine/bundle")
            >>> model.embed_texts(["a red circle", "a blue square"]).shape == (2, model.width)
            True
        """
        part, session = self.manifest.text, self._text
        if part is None or session is None or self._tokenizer is None:
            raise BundleError(f"{self.folder}: the bundle has no text tower; it embeds images only")
        if isinstance(texts, str):
            raise DataError("texts: found a single text, expected several; put it in a list")
        rows = [np.empty((0, part.width), np.float32)]
        for batch in _batches(texts, batch_size):
            if wrong := [text for text in batch if not isinstance(text, str)]:
                raise DataError(
                    f"texts: found an item of type {type(wrong[0]).__name__}, expected texts"
                )
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
        """Refuse to embed labels without a text tower, and say why."""
        if self._text is not None:
            return
        if self._bank is None:
            raise BundleError(
                f"{self.folder}: the bundle has no text tower, and classifying needs a text tower "
                "or labels that the bundle carries; export the student again with --labels"
            )
        if asked is not None and self._bank.rows(labels) is not None:
            raise BundleError(
                f"{self.folder}: other templates need a text tower, and this bundle has none; "
                "leave them out, or export the student again with them"
            )
        raise BundleError(
            f"{self.folder}: without a text tower, this bundle knows only the "
            f"{len(self._bank.names)} labels that it carries, and lacks "
            f"{self._bank.explain(labels)}; choose among its labels, or export the student again "
            "with --labels"
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
