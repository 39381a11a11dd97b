"""Teachers from open_clip_torch: any architecture with any of its weights."""

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from open_clip import (
    create_model,
    get_model_config,
    get_pretrained_cfg,
    get_tokenizer,
    list_models,
    list_pretrained_tags_by_model,
    load_checkpoint,
)
from open_clip.model import get_model_preprocess_cfg, set_model_preprocess_cfg
from open_clip.tokenizer import HFTokenizer

from distill.teacher._open_clip_hub import (
    CONFIG,
    WEIGHTS,
    fetch_weights,
    find_config,
    find_weights,
)
from distill.teacher._open_clip_towers import (
    PRECISIONS,
    OpenClipTeacher,
    OpenClipTokenizer,
    silent,
)
from distill.teacher._weights import is_torchscript, reading
from distill.teacher.protocol import Teacher
from export.runtime.errors import BundleError, TeacherError
from students.hub import VOCABULARY_FILES, find_model
from students.messages import one_line

_HUB, _FOLDER, _QUICK = "hf-hub:", "local-dir:", "-quickgelu"
# The names under which a folder of open_clip may hold its weights.
_WEIGHTS = (*WEIGHTS, "model.safetensors", "pytorch_model.bin")
# The preprocessing that a tag states; the image size belongs to the architecture.
_LOOKS = ("mean", "std", "interpolation", "resize_mode")
# Hub names or folders, which the fingerprint leaves out; it covers what is loaded from them.
_PLACES = ("hf_model_name", "hf_tokenizer_name")
_SHOWN = 12


@dataclass(frozen=True)
class _Found:
    """A model to build, and the weights to load into it.

    Attributes:
        name: The teacher's name in messages.
        identifier: The name by which open_clip builds it.
        config: Its configuration.
        weights: Finds or fetches the file of its weights; called once everything else is checked.
        quick_gelu: Whether the weights were trained with QuickGELU.
        look: Its preprocessing, except the image size.
        folder: The folder with its configuration, unless that comes with open_clip.
    """

    name: str
    identifier: str
    config: dict[str, Any]
    weights: Callable[[], Path]
    quick_gelu: bool
    look: Mapping[str, Any]
    folder: Path | None = None


def load_open_clip_teacher(
    model: str,
    *,
    pretrained: str | None = None,
    weights: str | None = None,
    quick_gelu: bool | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Teacher:
    """Load a model of open_clip.

    Args:
        model: A built-in architecture (``ViT-B-32``), a folder with ``open_clip_config.json``, or
            ``hf-hub:`` followed by a repository with that file.
        pretrained: A tag that open_clip knows for the architecture, or a weights file; None for
            a folder or a repository, which hold their own weights.
        weights: A local file with the weights of the tag; by default they are fetched.
        quick_gelu: Whether the weights were trained with QuickGELU; None if the configuration or
            the tag says so. A weights file does not.
        device: The device that it runs on.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``; stored weights are converted.

    Raises:
        TeacherError: A file is unavailable or damaged, or the model is built with another
            activation than the weights were trained with; one line.
    """
    try:
        if (folder := _folder_of(model)) is not None:
            _refuse_with_folder(model, pretrained=pretrained, weights=weights)
            found = _in_folder(folder, model)
        else:
            architecture = model.replace("/", "-")
            if entry := _published(architecture, pretrained):
                found = _of_tag(architecture, str(pretrained), entry, weights)
            else:
                found = _of_file(architecture, pretrained, weights, quick_gelu)
        _check_quick_gelu(found, pretrained, quick_gelu)
        return _load(found, model, device=device, dtype=dtype)
    except BundleError as error:
        raise TeacherError(f"teacher.model: {model}: {error}") from error
    except (OSError, ValueError) as error:
        raise TeacherError(str(error)) from error


def _folder_of(model: str) -> Path | None:
    """Return the local or fetched folder of a model, None for a built-in architecture."""
    if model.startswith(_HUB):
        return find_config(model.removeprefix(_HUB))
    folder = Path(model.removeprefix(_FOLDER)).expanduser()
    if model.startswith(_FOLDER) and not folder.is_dir():
        raise TeacherError(f"teacher.model: {model}: the folder does not exist")
    return folder if folder.is_dir() else None


def _refuse_with_folder(model: str, **given: str | None) -> None:
    for field, value in given.items():
        if value is not None:
            raise TeacherError(
                f"teacher.{field}: not used with {model}, which has its own weights; remove it"
            )


def _in_folder(folder: Path, model: str) -> _Found:
    file = folder / CONFIG
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        config, look = values["model_cfg"], values.get("preprocess_cfg", {})
        _ = config["embed_dim"], config["vision_cfg"], config["text_cfg"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise TeacherError(
            f"teacher.model: {file} is missing or damaged, so this is not a model of open_clip; "
            "name another folder, or use kind: hf for a model of transformers"
        ) from error
    return _Found(
        name=model.removeprefix(_HUB) if model.startswith(_HUB) else folder.resolve().name,
        identifier=f"{_FOLDER}{folder}",
        config=config,
        weights=partial(_weights_in, folder, model),
        quick_gelu=bool(config.get("quick_gelu", False)),
        look={key: look[key] for key in _LOOKS if key in look},
        folder=folder,
    )


def _weights_in(folder: Path, model: str) -> Path:
    if model.startswith(_HUB):
        return find_weights(model.removeprefix(_HUB))
    there = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not there:
        raise TeacherError(
            f"teacher.model: {folder} holds no weights; {_WEIGHTS[0]} is missing, put it next to "
            f"{CONFIG}"
        )
    return there[0]


def _published(architecture: str, pretrained: str | None) -> Mapping[str, Any]:
    """Return what open_clip knows about a tag of an architecture; empty if it is not a tag.

    Raises:
        TeacherError: open_clip has no such architecture, or ``pretrained`` is missing.
    """
    if get_model_config(architecture) is None:
        close = difflib.get_close_matches(architecture, list_models(), n=1)
        hint = f"did you mean {close[0]}?" if close else "`open_clip.list_models()` lists them all"
        raise TeacherError(
            f"teacher.model: found {architecture!r}, which is neither a folder nor an "
            f"architecture of open_clip; {hint}"
        )
    if pretrained is None:
        raise TeacherError(
            f"teacher.pretrained: missing; name a weights file, or a tag of {architecture}: "
            f"{_tags(architecture)}"
        )
    # A -quickgelu architecture lists only tags with QuickGELU; its twin lists the others.
    plain = architecture.removesuffix(_QUICK)
    entry = get_pretrained_cfg(architecture, pretrained) or get_pretrained_cfg(plain, pretrained)
    return dict(entry)


def _of_tag(architecture: str, tag: str, entry: Mapping[str, Any], weights: str | None) -> _Found:
    given = None if weights is None else Path(weights).expanduser()
    if given is not None and not given.is_file():
        raise TeacherError(f"teacher.weights: {weights} is not a file")
    # A tag that says nothing means no QuickGELU, unless the plain architecture has it.
    plain = get_model_config(architecture.removesuffix(_QUICK)) or {}
    return _Found(
        name=f"{architecture}-{tag}",
        identifier=architecture,
        config=get_model_config(architecture),
        weights=(lambda: given) if given is not None else partial(_fetch, entry, architecture, tag),
        quick_gelu=bool(entry.get("quick_gelu", plain.get("quick_gelu", False))),
        look={key: entry[key] for key in _LOOKS if key in entry},
    )


def _of_file(
    architecture: str, pretrained: str | None, weights: str | None, quick_gelu: bool | None
) -> _Found:
    file = Path(pretrained or "").expanduser()
    if not file.is_file():
        raise TeacherError(
            f"teacher.pretrained: found {pretrained!r}, which is neither a file nor a tag of "
            f"{architecture}: {_tags(architecture)}"
        )
    if weights is not None:
        raise TeacherError(
            f"teacher.weights: not used with the file {pretrained}; remove it, or set "
            "teacher.pretrained to the tag of the weights"
        )
    if quick_gelu is None:
        raise TeacherError(
            f"teacher.quick_gelu: missing; {pretrained} does not show whether its weights were "
            "trained with QuickGELU, as OpenAI's were; set it to true or false"
        )
    return _Found(
        name=f"{architecture}-{file.stem}",
        identifier=architecture,
        config=get_model_config(architecture),
        weights=lambda: file,
        quick_gelu=quick_gelu,
        look=_published_look(architecture),
    )


def _fetch(entry: Mapping[str, Any], architecture: str, tag: str) -> Path:
    try:
        return fetch_weights(entry)
    except OSError as error:
        place = str(entry.get("hf_hub") or entry.get("url"))
        wanted = f"{WEIGHTS[0]} of {place.rstrip('/')}" if place.endswith("/") else place
        raise TeacherError(
            f"teacher.pretrained: the weights {tag} of {architecture} cannot be loaded from the "
            f"hub; download {wanted} on a machine that reaches it, and set teacher.weights to the "
            "file"
        ) from error


def _published_look(architecture: str) -> Mapping[str, Any]:
    """Return the preprocessing that most published weights of an architecture use.

    A weights file does not state it, and open_clip's default is wrong for SigLIP and others.
    """
    tags = list_pretrained_tags_by_model(architecture)
    entries = [get_pretrained_cfg(architecture, tag) for tag in tags]
    looks = [{key: entry[key] for key in _LOOKS if key in entry} for entry in entries]
    texts = [json.dumps(look) for look in looks]
    return looks[texts.index(max(texts, key=texts.count))] if looks else {}


def _check_quick_gelu(found: _Found, pretrained: str | None, quick_gelu: bool | None) -> None:
    """Refuse to run weights with another activation than they were trained with."""
    names = {True: "with QuickGELU", False: "without QuickGELU"}
    trained = f"the weights {pretrained or found.name} were trained {names[found.quick_gelu]}"
    if quick_gelu is not None and quick_gelu != found.quick_gelu:
        raise TeacherError(
            f"teacher.quick_gelu: found {_yaml(quick_gelu)}, but {trained}; remove it, or set it "
            f"to {_yaml(found.quick_gelu)}"
        )
    built, name = bool(found.config.get("quick_gelu", False)), found.identifier
    twin = built and name.endswith(_QUICK)
    # quick_gelu in the recipe stands for the -quickgelu name, but cannot overrule that name.
    if built == found.quick_gelu or (quick_gelu is not None and not twin):
        return
    ways_out = f"set quick_gelu: {_yaml(found.quick_gelu)}"
    if not built:
        ways_out = f"name {name}{_QUICK}, or {ways_out}"
    elif twin:
        ways_out = f"name {name.removesuffix(_QUICK)}"
    raise TeacherError(f"teacher.model: {name} is built {names[built]}, but {trained}; {ways_out}")


def _load(found: _Found, model: str, *, device: str, dtype: str) -> OpenClipTeacher:
    weights = found.weights()
    if is_torchscript(weights):
        raise TeacherError(
            f"teacher.pretrained: {weights} is a TorchScript archive; use kind: openai for "
            "archives that OpenAI distributes"
        )
    text = dict(found.config["text_cfg"])
    tokenizer = _tokenizer(found, text, model)
    precision = PRECISIONS[dtype]
    name = text.get("hf_model_name")
    if precision != "fp32" and (name or "multimodal_cfg" in found.config):
        # Some norms in these models cannot mix two precisions.
        precision = f"pure_{precision}"
    if name:
        folder = find_model(name, field=f"teacher.model: {model}, hf_model_name", weights=False)
        text |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    with one_line(f"teacher.model: {model} cannot be built"), silent():
        towers = create_model(
            found.identifier,
            load_weights=False,
            pretrained_text=False,
            precision=precision,
            quick_gelu=found.quick_gelu,
            text_cfg=text,
        )
    with reading(weights), silent():
        load_checkpoint(towers, str(weights), weights_only=True)
    towers.to(device)
    look = {**get_model_preprocess_cfg(towers), **found.look}
    set_model_preprocess_cfg(towers, look)
    return OpenClipTeacher(
        towers,
        tokenizer,
        name=found.name,
        weights=weights,
        config=_without_places(found),
        dtype=dtype,
    )


def _tokenizer(found: _Found, text: Mapping[str, Any], model: str) -> OpenClipTokenizer:
    """Return the model's own tokenizer, from its folder if the files are there."""
    name = text.get("hf_tokenizer_name")
    if not name:
        with silent():
            return OpenClipTokenizer(get_tokenizer(found.identifier))
    own = found.folder
    if own is None or not any((own / file).is_file() for file in VOCABULARY_FILES):
        field = f"teacher.model: {model}, hf_tokenizer_name"
        own = find_model(name, field=field, weights=False)
    with one_line(f"teacher.model: {model}: its tokenizer cannot be loaded"), silent():
        tokenizer = HFTokenizer(
            str(own),
            context_length=text.get("context_length", 77),
            tokenizer_mode=text.get("tokenizer_mode"),
            **(text.get("tokenizer_kwargs") or {}),
        )
    return OpenClipTokenizer(tokenizer)


def _without_places(found: _Found) -> dict[str, Any]:
    """Return the model's configuration without the names or folders of its parts."""
    text = found.config["text_cfg"]
    kept = {key: value for key, value in text.items() if key not in _PLACES}
    return {**found.config, "quick_gelu": found.quick_gelu, "text_cfg": kept}


def _yaml(flag: bool) -> str:
    return "true" if flag else "false"


def _tags(architecture: str) -> str:
    tags = list_pretrained_tags_by_model(architecture)
    more = len(tags) - _SHOWN
    shown = ", ".join(tags[:_SHOWN]) or "none is known"
    return f"{shown} and {more} more" if more > 0 else shown
