"""The losses section of a recipe: a preset, terms that override it, and the resolved terms.

The section has a field for each row of the catalogue of losses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict, create_model

from distill.losses.catalogue import (
    TERMS,
    Choice,
    ChoiceOrNumber,
    Line,
    Number,
    TermField,
    TermRow,
    Whole,
)
from distill.losses.presets import PRESETS
from distill.recipe.base import NonNegative, Section, Text, by_type, whole

PresetName = Literal["default", "clip_kd", "tinyclip", "mobileclip", "dime"]


class Schedule(Section):
    """How a term's weight changes over the run."""

    kind: Literal["linear", "cosine"] = "linear"
    """A straight line, or half a cosine."""
    end: NonNegative = 0.0
    """The weight at the end of the run."""


class TermEntry(Section):
    """The fields that every term has."""

    weight: NonNegative | None = None
    """Weight of the term; 0 removes it; null: the preset's weight."""
    schedule: Schedule | None = None
    """How the weight changes over the run; null: it does not."""


def _number(number: Number) -> Any:
    limits = Field(gt=number.above, ge=number.least, lt=number.below, allow_inf_nan=False)
    return Annotated[float, Strict(), limits]


def _annotation(field: TermField) -> Any:
    """Return the type by which pydantic checks a field of a term."""
    match field.values:
        case Number() as number:
            return _number(number)
        case Whole(least):
            return Annotated[int, Strict(), Field(ge=least), BeforeValidator(whole)]
        case Line():
            return Text | None
        case Choice(names):
            return Literal[names]
        case ChoiceOrNumber(names, limits, expected):
            number = _number(limits)
            types = {str: Literal[names], int: number, float: number}
            return Annotated[Literal[names] | number, by_type(expected, types)]


def _entry(row: TermRow) -> type[TermEntry]:
    """Return the section that a term's row describes."""
    fields: dict[str, Any] = {
        field.name: (_annotation(field), Field(default=field.default, description=field.sentence))
        for field in row.fields
    }
    name = "".join(part.capitalize() for part in row.name.split("_"))
    return create_model(
        f"{name}Entry",
        __base__=TermEntry,
        __doc__=row.title,
        __module__=__name__,
        # It has no source to read docstrings from, and looking for it takes a while.
        __cls_kwargs__={"use_attribute_docstrings": False},
        **fields,
    )


ENTRIES: Mapping[str, type[TermEntry]] = {name: _entry(row) for name, row in TERMS.items()}


def _term_fields() -> dict[str, Any]:
    """Return the fields of the section: for each term a weight, or a map."""
    fields = {}
    for name, entry in ENTRIES.items():
        types = {dict: entry, int: NonNegative, float: NonNegative}
        expected = "a weight, or a map with weight, schedule and the term's own fields"
        either: Any = NonNegative | entry | None
        annotation = Annotated[either, by_type(expected, types)]
        fields[name] = (annotation, Field(default=None, description=TERMS[name].title))
    return fields


class _Losses(Section):
    """The loss terms; each overrides the preset's term of the same name, field by field."""

    preset: PresetName | None = None
    """The preset to start from; null: none."""


if TYPE_CHECKING:
    Losses = _Losses
else:
    Losses = create_model(
        "Losses", __base__=_Losses, __doc__=_Losses.__doc__, __module__=__name__, **_term_fields()
    )


LossesField = Annotated[
    PresetName | Losses,
    by_type("the name of a preset, or a map of terms", {str: PresetName, dict: Losses}),
]


@dataclass(frozen=True)
class ResolvedTerm:
    """A term with every value filled in, and its row of the catalogue.

    ``arguments`` are those of the term's function, ``options`` its other fields in the recipe.
    """

    row: TermRow
    weight: float
    schedule: Literal["none", "linear", "cosine"]
    end: float
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]


def expand(losses: str | Losses) -> dict[str, TermEntry]:
    """Return the terms of a recipe, merged with those of its preset, without those of weight 0.

    A term that starts at 0 stays if the recipe gives it a schedule with an end above 0.

    Raises:
        KeyError: A term has no weight in the recipe or its preset; the argument names the term.
    """
    section = Losses.model_validate({"preset": losses}) if isinstance(losses, str) else losses
    preset = PRESETS[section.preset].terms if section.preset else {}
    terms: dict[str, TermEntry] = {}
    for name, entry_type in ENTRIES.items():
        own = _own_fields(getattr(section, name))
        if own is None and name not in preset:
            continue
        entry = entry_type.model_validate(_merge(preset.get(name, {}), own or {}))
        if entry.weight is None:
            raise KeyError(name)
        schedule = entry.schedule if own and own.get("schedule") else None
        comes_later = schedule is not None and schedule.end > 0
        if entry.weight > 0 or comes_later:
            terms[name] = entry
    return terms


def resolve_terms(losses: str | Losses) -> dict[str, ResolvedTerm]:
    """Return the terms of a recipe with every value filled in."""
    return {
        name: ResolvedTerm(
            row=TERMS[name],
            weight=float(entry.weight or 0.0),
            schedule="none" if entry.schedule is None else entry.schedule.kind,
            end=0.0 if entry.schedule is None else entry.schedule.end,
            arguments=entry.model_dump(include=set(TERMS[name].arguments)),
            options=entry.model_dump(include=set(TERMS[name].options)),
        )
        for name, entry in expand(losses).items()
    }


def _own_fields(entry: float | TermEntry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    if isinstance(entry, TermEntry):
        return entry.model_dump(exclude_unset=True)
    return {"weight": float(entry)}


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(under, value)
        # A weight of null means the weight of the preset.
        elif key != "weight" or value is not None:
            merged[key] = value
    return merged
