"""Reading and writing a recipe as YAML."""

import re
import textwrap
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from distill.recipe.base import Section
from distill.recipe.config import RunConfig
from export.runtime.errors import RecipeError

# PyYAML follows YAML 1.1, which reads 3e-4 as a text because it has no point.
_EXPONENT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
_COMMENT_WIDTH = 96


_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """Reads plain YAML: 3e-4 is a float, a date is a text, and no key may be given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is given twice, here and in line "
                    f"{seen[key.value]}; keep one of them",
                    problem_mark=key.start_mark,
                )
            seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back as the same value, with each text on one line."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def read_yaml(text: str, *, where: str) -> Any:
    """Return the value of one YAML document.

    Raises:
        RecipeError: It is not YAML; the message names ``where`` and the line.
    """
    try:
        loader = _Loader(text)
        try:
            return unshared(loader.get_single_data())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f" line {mark.line + 1}, column {mark.column + 1}:"
        problem = " ".join(str(error.problem or error.context).split())
        raise RecipeError(f"{where}:{place} {problem}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise RecipeError(f"{where}: not YAML: {' '.join(str(error).split())}") from error


def unshared(value: Any) -> Any:
    """Return a copy in which each alias is its own value, so it can be changed alone."""
    if isinstance(value, Mapping):
        return {key: unshared(entry) for key, entry in value.items()}
    return [unshared(entry) for entry in value] if isinstance(value, list) else value


def inline(value: Any) -> str:
    """Return a value as YAML on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.dump(
        plain,
        Dumper=_Dumper,
        default_flow_style=True,
        width=float("inf"),
        allow_unicode=True,
        sort_keys=False,
    )
    return text.removesuffix("\n").removesuffix("...").removesuffix("\n")


def to_yaml(config: RunConfig, *, comments: bool) -> str:
    """Return a recipe in YAML that loads as the same configuration.

    Args:
        config: What to write, defaults included.
        comments: Whether to write the description and range of each field above it.
    """
    blocks = _fields(config, comments=comments)
    return ("\n\n" if comments else "\n").join("\n".join(block) for block in blocks) + "\n"


def _fields(section: Section, *, comments: bool) -> list[list[str]]:
    """Return the lines of each field of a section."""
    model = type(section)
    schemas = _schemas(model) if comments else {}
    blocks = []
    for name, field in model.model_fields.items():
        lines = []
        if comments:
            allowed = _allowed_values(schemas[name])
            lines += _comment(field.description or "", f"[{allowed}]" if allowed else "")
        blocks.append(lines + _entry(name, getattr(section, name), comments=comments))
    return blocks


@cache
def _schemas(model: type[Section]) -> dict[str, Any]:
    """Return the schema of each field of a section."""
    schemas: dict[str, Any] = model.model_json_schema()["properties"]
    return schemas


def _comment(sentence: str, allowed: str) -> list[str]:
    lines = textwrap.wrap(sentence, _COMMENT_WIDTH)
    if allowed and lines and len(lines[-1]) + len(allowed) < _COMMENT_WIDTH:
        lines[-1] += f" {allowed}"
    elif allowed:
        lines.append(allowed)
    return [f"# {line}" for line in lines]


def _entry(name: str, value: Any, *, comments: bool) -> list[str]:
    if isinstance(value, Section):
        return [f"{name}:", *_indented(value, comments=comments)]
    if isinstance(value, tuple) and value and isinstance(value[0], Section):
        lines = [f"{name}:"]
        for entry in value:
            first, *rest = _indented(entry, comments=comments)
            lines += [f"  - {first.strip()}", *(f"  {line}" for line in rest)]
        return lines
    return [f"{name}: {inline(value)}"]


def _indented(section: Section, *, comments: bool) -> list[str]:
    return [f"  {line}" for block in _fields(section, comments=comments) for line in block]


def _allowed_values(schema: Mapping[str, Any]) -> str:
    """Return the values that the JSON schema of a field allows, in a few characters."""
    branches = [branch for branch in schema.get("anyOf", ()) if branch.get("type") != "null"]
    if len(branches) == 1:
        return _allowed_values(branches[0])
    if "prefixItems" in schema:
        return _allowed_values(schema["prefixItems"][0])
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema)
