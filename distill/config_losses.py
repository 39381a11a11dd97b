"""The losses section of a recipe: a preset, or terms over a preset, and what they come to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from distill.config_base import NonNegative, Positive, Section, by_type
from distill.presets import NEEDS, PRESETS, Needs

PresetName = Literal["default"]


class Schedule(Section):
    """How a term's weight changes over the run."""

    kind: Literal["linear", "cosine"] = "linear"
    """A straight line, or half a cosine."""
    end: NonNegative = 0.0
    """The weight at the end of the run."""


class TermEntry(Section):
    """What every term has beside its own arguments."""

    weight: NonNegative | None = None
    """Factor of the term; 0 removes it; null: the preset's."""
    schedule: Schedule | None = None
    """How the weight goes from its value at the start to another; null: it stays."""


class KlDivergenceEntry(TermEntry):
    """Matches the teacher's distributions over the batch, both ways."""

    temperature: Positive = 1.0
    """What both models' logits are divided by."""


class EmbeddingAlignmentEntry(TermEntry):
    """Pulls each embedding to the teacher's of the same picture or text."""

    kind: Literal["cosine", "mse", "smooth_l1"] = "cosine"
    """One minus the cosine, the squared error, or the Huber error."""


class ContrastiveEntry(TermEntry):
    """Tells true pairs from all others (InfoNCE)."""


ENTRIES: Mapping[str, type[TermEntry]] = {
    "kl_divergence": KlDivergenceEntry,
    "embedding_alignment": EmbeddingAlignmentEntry,
    "contrastive": ContrastiveEntry,
}


def _weight_or(entry: type[TermEntry]) -> Any:
    return by_type(
        "a weight, or a map with weight, schedule and the term's own arguments",
        {dict: entry, int: NonNegative, float: NonNegative},
    )


class Losses(Section):
    """The terms of the loss; each replaces the preset's of the same name field by field."""

    preset: PresetName | None = None
    """The terms to begin with; null: none."""
    kl_divergence: Annotated[
        NonNegative | KlDivergenceEntry | None, _weight_or(KlDivergenceEntry)
    ] = None
    """Matches the teacher's distributions over the batch, both ways."""
    embedding_alignment: Annotated[
        NonNegative | EmbeddingAlignmentEntry | None, _weight_or(EmbeddingAlignmentEntry)
    ] = None
    """Pulls each embedding to the teacher's of the same picture or text."""
    contrastive: Annotated[NonNegative | ContrastiveEntry | None, _weight_or(ContrastiveEntry)] = (
        None
    )
    """Tells true pairs from all others (InfoNCE)."""


LossesField = Annotated[
    PresetName | Losses,
    by_type("the name of a preset, or a map of terms", {str: PresetName, dict: Losses}),
]


@dataclass(frozen=True)
class ResolvedTerm:
    """A term with every value filled in."""

    weight: float
    schedule: Literal["none", "linear", "cosine"]
    end: float
    arguments: Mapping[str, Any]
    needs: Needs

    @property
    def needs_texts(self) -> bool:
        """Whether it needs captions and both towers."""
        return self.needs.texts

    @property
    def needs_equal_width(self) -> bool:
        """Whether student and teacher must be equally wide."""
        return self.needs.equal_width


def expand(losses: str | Losses) -> dict[str, TermEntry]:
    """Return the terms of a recipe with the preset's merged in, those of weight 0 left out.

    A term that begins at 0 and has a schedule of its own in the recipe stays: it comes in later.

    Raises:
        KeyError: a term has no weight, in the recipe or in its preset; the argument names it.
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
    """Return the terms of a recipe as the loss takes them."""
    return {
        name: ResolvedTerm(
            weight=float(entry.weight or 0.0),
            schedule="none" if entry.schedule is None else entry.schedule.kind,
            end=0.0 if entry.schedule is None else entry.schedule.end,
            arguments=entry.model_dump(exclude={"weight", "schedule"}),
            needs=NEEDS[name],
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
        # A weight of null means the preset's, as its sentence says.
        elif key != "weight" or value is not None:
            merged[key] = value
    return merged
