"""Prompt templates: texts with ``{}`` where the name of a class goes."""

from pathlib import Path

from distill.basis.words import shorten
from distill.labels._open_clip import zero_shot_metadata
from distill.labels.names import class_in_words, read_lines
from export.runtime.errors import DataError

DEFAULT_TEMPLATES = ("a photo of a {}.",)
_OPENAI = "openai"


def fill(template: str, name: str) -> str:
    """Return a template filled with the name of a class, in words.

    Raises:
        DataError: The template has neither ``{}`` nor ``{c}``.
    """
    return insert(template, class_in_words(name))


def insert(template: str, name: str) -> str:
    """Return a template filled with a name as it is.

    Raises:
        DataError: The template has neither ``{}`` nor ``{c}``.
    """
    if "{}" not in template and "{c}" not in template:
        raise DataError(
            f"templates: {shorten(template)} has no {{}} where the class goes; "
            "write for example 'a photo of a {}.'"
        )
    return template.replace("{}", name).replace("{c}", name)


def plain_template(template: str) -> str:
    """Return a template with ``{}`` in place of ``{c}``."""
    return template.replace("{c}", "{}")


def read_templates(name: str, *, field: str) -> tuple[str, ...]:
    """Return the prompt templates ``openai``, or those of a text file, with ``{}`` for the class.

    ``openai`` means OpenAI's 80 templates for ImageNet, as open_clip ships them. A file has one
    template per line, which may say ``{c}`` instead of ``{}``.

    Raises:
        DataError: The file cannot be read, or a line has no place for the class; the message
            names ``field``.
    """
    if name == _OPENAI:
        templates = zero_shot_metadata().OPENAI_IMAGENET_TEMPLATES
        return tuple(template("{}") for template in templates)
    found = tuple(map(plain_template, read_lines(Path(name), field=field)))
    for template in found:
        if "{}" not in template:
            raise DataError(
                f"{field}: {name}: {shorten(template)} is not a template; each line needs {{}} or "
                "{c} where the name of the class goes"
            )
    return found


def label_templates(given: tuple[str, ...] | str, *, field: str) -> tuple[str, ...]:
    """Return the templates of a list, or those that `read_templates` finds under a name.

    Raises:
        DataError: They cannot be read, or one does not have exactly one place for the label.
    """
    templates = read_templates(given, field=field) if isinstance(given, str) else given
    for template in templates:
        if template.count("{}") != 1:
            raise DataError(
                f"{field}: {template!r} is not a template; it needs {{}} once, where the label goes"
            )
    return templates
