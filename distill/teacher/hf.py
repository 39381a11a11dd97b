"""Teachers from transformers: any dual encoder that ``AutoModel`` loads, and finished students."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distill.teacher._fingerprint import fingerprint, weight_files
from distill.teacher._frozen import DTYPES, Declared, FrozenTeacher
from distill.teacher.protocol import Teacher
from export.runtime.errors import BundleError, TeacherError
from export.runtime.preprocess import Preprocessing
from students.encoder import (
    Student,
    embed_images,
    embed_texts,
    encodable,
    logit_bias,
    raw_logit_scale,
    tokenize,
)
from students.hub import find_model
from students.loading import load_parts

# The folders in which training saves its students.
_STUDENTS = ("student", "student_best")


class TransformersTeacher(FrozenTeacher):
    """A dual encoder of transformers that follows the ``Teacher`` protocol.

    Args:
        student: The model with its tokenizer and image processor.
        name: Its name in messages.
        folder: The folder with its files.
        dtype: The dtype that its weights were loaded in.
        published: Whether published models of its type use the same preprocessing; False for
            students, which have their own.

    Raises:
        ValueError: A tower is missing, or the towers have different widths; one line.
        BundleError: The toolkit does not support its preprocessing.
    """

    def __init__(
        self, student: Student, *, name: str, folder: Path, dtype: str, published: bool = True
    ) -> None:
        if student.tokenizer is None or student.image_processor is None:
            raise ValueError(
                f"teacher.model: {name}: a teacher needs an image tower and a text tower"
            )
        self._tower = student.model
        self._tokenizer: PreTrainedTokenizerBase = student.tokenizer
        self._padding = student.padding
        bias = logit_bias(student.model)
        declared = Declared(
            name=name,
            tokenizer=type(student.tokenizer).__name__,
            context_length=student.context_length,
            preprocessing=Preprocessing.from_processor(student.image_processor.to_dict()),
            logit_scale=float(raw_logit_scale(student.model).detach()),
            logit_bias=0.0 if bias is None else float(bias.detach()),
            fingerprint=fingerprint(folder, dtype=dtype),
            bytes=sum(file.stat().st_size for file in weight_files(folder)),
            model_type=student.model.config.model_type if published else None,
        )
        super().__init__(student.model, declared, device=student.model.device)

    def _embed_values(self, values: Tensor) -> Tensor:
        return embed_images(self._tower, values)

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        tokens = tokenize(
            self._tokenizer, texts, context_length=self.context_length, padding=self._padding
        )
        device = self._levels.device
        return embed_texts(self._tower, {key: ids.to(device) for key, ids in tokens.items()})

    def _token_counts(self, texts: Sequence[str]) -> list[int]:
        whole = self._tokenizer(encodable(texts), return_attention_mask=False, verbose=False)
        return [len(ids) for ids in whole["input_ids"]]


def load_hf_teacher(model: str, *, device: str = "cpu", dtype: str = "float32") -> Teacher:
    """Load a frozen teacher from a local folder or by its name on the hub.

    Args:
        model: A folder, or a name such as ``openai/clip-vit-large-patch14``.
        device: The device that it runs on.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``; stored weights are converted.

    Raises:
        TeacherError: A file is missing, or the folder does not hold a dual encoder; one line.
    """
    try:
        folder = find_model(model, field="teacher.model")
    except OSError as error:
        raise TeacherError(str(error)) from error
    name = folder.resolve().name if Path(model).expanduser().is_dir() else model
    return _load(folder, model, name=name, device=device, dtype=dtype, published=True)


def load_student_teacher(model: str, *, device: str = "cpu", dtype: str = "float32") -> Teacher:
    """Load a finished student as a frozen teacher.

    Args:
        model: The student's folder, or the folder of the run that trained it.
        device: The device that it runs on.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``; stored weights are converted.

    Raises:
        TeacherError: The folder holds no finished student, or the student lacks a tower; one line.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise TeacherError(
            f"teacher.model: {model} is not a folder; kind: student takes the folder of a student "
            "or of its run"
        )
    if not (folder / "config.json").is_file():
        if not (folder / _STUDENTS[0] / "config.json").is_file():
            raise TeacherError(
                f"teacher.model: {model} holds no finished student (config.json, or "
                "student/config.json in a run folder); train one first, or name another folder"
            )
        folder = folder / _STUDENTS[0]
    place = folder.resolve()
    name = "-".join(place.parts[-2:]) if place.name in _STUDENTS else place.name
    return _load(folder, model, name=name, device=device, dtype=dtype, published=False)


def _load(
    folder: Path, model: str, *, name: str, device: str, dtype: str, published: bool
) -> Teacher:
    try:
        parts = load_parts(folder, name=f"teacher.model: {model}", dtype=DTYPES[dtype])
        parts.model.to(device)
        return TransformersTeacher(
            parts, name=name, folder=folder, dtype=dtype, published=published
        )
    except BundleError as error:
        raise TeacherError(f"teacher.model: {model}: {error}") from error
    except (OSError, ValueError) as error:
        raise TeacherError(str(error)) from error
