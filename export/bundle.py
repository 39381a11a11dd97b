"""Export a student to a bundle, which appears complete and verified or not at all."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import onnx
import tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from export.gate import (
    check_difference,
    check_preprocessing,
    check_tokenizer,
    image_probes,
    largest_difference,
    text_probes,
)
from export.graph import (
    IMAGE_INPUT,
    IMAGE_OUTPUT,
    TEXT_INPUTS,
    TEXT_OUTPUT,
    export_image,
    export_text,
)
from export.labels import LABELS_FILE, Labels, write_labels
from export.runtime import manifest
from export.runtime.errors import BundleError, ExportError, StudentError
from export.runtime.manifest import ImagePart, LabelPart, Manifest, TextPart
from export.runtime.model import EdgeModel
from export.runtime.preprocess import Preprocessing
from students.encoder import Student, logit_bias, logit_scale
from students.model import StudentModel, load_student

_IMAGE_FILE = "image.onnx"
_TEXT_FILE = "text.onnx"
_TOKENIZER_FILE = "tokenizer.json"
_FILES = (manifest.FILE, _IMAGE_FILE, _TEXT_FILE, _TOKENIZER_FILE, LABELS_FILE)


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Attributes:
        folder: The bundle.
        sizes: Size in bytes of each file, by name.
        differences: Largest absolute difference between each graph's embeddings and the
            student's, by file name.
        tolerance: The largest difference that was allowed.
    """

    folder: Path
    sizes: dict[str, int]
    differences: dict[str, float]
    tolerance: float


def export_student(
    folder: Path,
    out: Path,
    *,
    templates: Sequence[str] = ("a photo of a {}.",),
    labels: Labels | None = None,
    opset: int = 18,
    tolerance: float = 1e-4,
    force: bool = False,
) -> ExportReport:
    """Export a student as a bundle that ``EdgeModel`` loads.

    The bundle is built in a temporary folder next to ``out``. Once its graphs agree with the
    student, the folder is renamed to ``out`` and replaces any bundle that is already there.

    Args:
        folder: A student, or any other dual encoder of transformers.
        out: The folder of the bundle.
        templates: Prompts that the bundle classifies with, each with ``{}`` for the label.
        labels: Labels that the bundle carries, embedded with these templates.
        opset: ONNX operator set of the graphs.
        tolerance: Largest absolute difference between embeddings that passes.
        force: Replace ``out`` even if it contains files that do not belong to a bundle.

    Raises:
        ExportError: ``out`` cannot be used, a tower cannot be exported, or its graph differs from
            it.
        StudentError: The student cannot be loaded.

    Examples:
        >>> from pathlib import Path
        >>> from export.bundle import export_student
        >>> report = export_student(Path("runs/mine/student"), Path("bundle"))
        >>> sorted(report.sizes)
        ['image.onnx', 'manifest.json', 'text.onnx', 'tokenizer.json']
    """
    folder, out = Path(folder), Path(out)
    _check_place(out, student=folder, force=force)
    prompts = _checked_templates(templates)
    try:
        student = load_student(folder)
    except (OSError, ValueError) as error:
        raise StudentError(str(error)) from error
    with _built_beside(out) as build:
        image, image_difference = _write_image(build, student, opset=opset)
        text, text_difference = _write_text(build, student, opset=opset)
        differences = image_difference | text_difference
        for file, difference in differences.items():
            check_difference(difference, file=file, tolerance=tolerance)
        bank = None if labels is None else write_labels(build, labels, image or text)
        description = _describe(student.model, image, text, templates=prompts, labels=bank)
        manifest.write(build, description)
        # Load the result, so that a contradiction shows up here and not on the device.
        EdgeModel.load(build)
        sizes = {name: (build / name).stat().st_size for name in description.files}
    return ExportReport(out, sizes, differences, tolerance)


def _check_place(out: Path, *, student: Path, force: bool) -> None:
    """Refuse a folder that cannot be replaced without losing other files."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ExportError(f"{out}: found a file or a link; choose another folder for the bundle")
    if student.resolve().is_relative_to(out.resolve()):
        raise ExportError(f"{out}: this folder contains the student; choose another for the bundle")
    blocked = next((parent for parent in out.absolute().parents if parent.exists()), None)
    if blocked is not None and not blocked.is_dir():
        raise ExportError(f"{out}: {blocked} is a file; choose another folder for the bundle")
    if force or not out.is_dir():
        return
    names = sorted(entry.name for entry in out.iterdir())
    foreign = [name for name in names if name not in _FILES]
    if foreign or (names and manifest.FILE not in names):
        raise ExportError(
            f"{out}: the folder contains {(foreign or names)[0]} and is not a bundle, so it is not "
            "replaced; choose another folder"
        )


def _checked_templates(templates: Sequence[str]) -> tuple[str, ...]:
    try:
        return manifest.check_templates(templates, "export.templates")
    except BundleError as error:
        raise ExportError(str(error)) from error


def _write_image(
    build: Path, student: Student, *, opset: int
) -> tuple[ImagePart | None, dict[str, float]]:
    """Write the image graph, if there is one; return its manifest entry and its difference."""
    if student.image_processor is None:
        return None, {}
    try:
        preprocessing = Preprocessing.from_processor(student.image_processor.to_dict())
    except BundleError as error:
        raise ExportError(f"preprocessor_config.json: {error}") from error
    check_preprocessing(student, preprocessing)
    # Run the model before tracing, which may leave its own tensors in the model's caches.
    probes = image_probes(student, preprocessing)
    graph = export_image(student.model, preprocessing, opset=opset)
    _save(graph, build / _IMAGE_FILE)
    part = ImagePart(
        file=_IMAGE_FILE,
        input=IMAGE_INPUT,
        output=IMAGE_OUTPUT,
        width=probes[0].expected.shape[1],
        preprocessing=preprocessing,
    )
    difference = largest_difference(build / _IMAGE_FILE, probes, output=IMAGE_OUTPUT)
    return part, {_IMAGE_FILE: difference}


def _write_text(
    build: Path, student: Student, *, opset: int
) -> tuple[TextPart | None, dict[str, float]]:
    """Write the text graph, if there is one; return its manifest entry and its difference."""
    tokenizer = student.tokenizer
    if tokenizer is None:
        return None, {}
    _save_tokenizer(tokenizer, build / _TOKENIZER_FILE)
    probes = text_probes(student)
    part = TextPart(
        file=_TEXT_FILE,
        tokenizer=_TOKENIZER_FILE,
        inputs=TEXT_INPUTS,
        output=TEXT_OUTPUT,
        width=probes[0].expected.shape[1],
        context_length=student.context_length,
        padding=student.padding,
        pad_token_id=tokenizer.pad_token_id,
        mask_padding="attention_mask" in tokenizer.model_input_names,
    )
    check_tokenizer(student, part, build / _TOKENIZER_FILE)
    graph = export_text(student.model, context_length=student.context_length, opset=opset)
    _save(graph, build / _TEXT_FILE)
    difference = largest_difference(build / _TEXT_FILE, probes, output=TEXT_OUTPUT)
    return part, {_TEXT_FILE: difference}


def _save(graph: onnx.ModelProto, path: Path) -> None:
    try:
        content = graph.SerializeToString()
    except Exception as error:  # The class of protobuf's error depends on its version.
        raise ExportError(
            f"{path.name}: an ONNX file can hold at most 2 GB; choose a smaller tower"
        ) from error
    path.write_bytes(content)


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ExportError(
            f"{path.name}: {type(tokenizer).__name__} runs in Python, but a device has only the "
            "tokenizers library; choose a student whose tokenizer is saved as tokenizer.json"
        )
    # Copy it, to leave out the padding and truncation of the last call.
    copy = tokenizers.Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.save(str(path))


@contextmanager
def _built_beside(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes ``out`` at the end, or is removed on failure."""
    target = out.absolute()
    made = [parent for parent in target.parents if not parent.exists()]
    build = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        build.mkdir()
        yield build
        _put_in_place(build, target)
    except OSError as error:
        raise ExportError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(build, ignore_errors=True)
        for parent in made:
            # Fails if the folder is not empty, such as with the finished bundle in it.
            with suppress(OSError):
                parent.rmdir()


def _put_in_place(build: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        if target.exists():
            target.rename(old)
        build.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


def _describe(
    model: PreTrainedModel,
    image: ImagePart | None,
    text: TextPart | None,
    *,
    templates: tuple[str, ...],
    labels: LabelPart | None,
) -> Manifest:
    bias = logit_bias(model)
    return Manifest(
        name=_name(model),
        created_by=_created_by(),
        image=image,
        text=text,
        logit_scale=logit_scale(model).item(),
        logit_bias=0.0 if bias is None else bias.item(),
        templates=templates,
        labels=labels,
    )


def _name(model: PreTrainedModel) -> str:
    """Return a short name that says what the model is made of."""
    image, text = getattr(model.config, "image", None), getattr(model.config, "text", None)
    if not isinstance(model, StudentModel):
        return str(model.config.model_type)
    towers = [image["backbone"]] if image else []
    return " + ".join([*towers, *(["bert"] if text else [])])


def _created_by() -> str:
    try:
        return f"clip-distill {metadata.version('clip-distill')}"
    except metadata.PackageNotFoundError:
        return "clip-distill"
