"""What all sections of a recipe share: their base class, ranges, and choices by kind."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import InitErrorDetails


class Section(BaseModel):
    """A section of a recipe: frozen, and closed to unknown keys.

    The sentence under each field is its description, in the JSON schema and in the comments that
    ``clip-distill recipe`` writes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


_Row = TypeVar("_Row", bound=Section)


def whole(value: Any) -> Any:
    """Return a float such as 1e5, as YAML reads it, as an int; return other values unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Strict everywhere: a quoted number, or `true` for a number, is a mistake.
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), Field(min_length=1)]
Natural = Annotated[int, Strict(), Field(ge=0), BeforeValidator(whole)]
Count = Annotated[int, Strict(), Field(ge=1), BeforeValidator(whole)]
Fraction = Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]


def later(default: Any) -> Any:
    """Leave a field out of dumps at its default, so recipes older than it keep their digests."""
    return Field(exclude_if=lambda value: value == default)


def kind_of(model: type[Section]) -> str | None:
    """Return the kind of a section, None if it has none or allows several."""
    field = model.model_fields.get("kind")
    choices = get_args(field.annotation) if field is not None else ()
    return choices[0] if len(choices) == 1 else None


def kinds_of(models: Iterable[type[_Row]]) -> dict[str, type[_Row]]:
    """Return sections by their kinds.

    Raises:
        TypeError: A section has no kind, or the same kind as another; one line that names it.
    """
    kinds: dict[str, type[_Row]] = {}
    for model in models:
        kind = kind_of(model)
        if kind is None:
            raise TypeError(
                f"{model.__name__}: a section that is chosen by its kind needs a field such as "
                '`kind: Literal["hf"] = "hf"`'
            )
        if kind in kinds:
            raise TypeError(f"{model.__name__}: {kinds[kind].__name__} has the kind {kind} too")
        kinds[kind] = model
    return kinds


def by_kind(*models: type[Section], default: str | None = None) -> BeforeValidator:
    """Let the ``kind`` of a map choose its model, before pydantic tries the branches of a union.

    An unknown kind does not hide other errors of the map. A key that no model has is reported with
    it, and so is a value that no model with that key accepts.
    """
    kinds = kinds_of(models)
    expected = ", ".join(kinds)

    def choose(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        kind = value.get("kind", default)
        if isinstance(kind, str) and kind in kinds:
            return kinds[kind].model_validate(dict(value))
        wrong = InitErrorDetails(
            type="literal_error" if "kind" in value else "missing", loc=("kind",), input=kind
        )
        if "kind" in value:
            wrong["ctx"] = {"expected": expected}
        raise ValidationError.from_exception_data(
            "kind", [wrong, *_common_errors(dict(value), kinds)]
        )

    return BeforeValidator(choose)


def _common_errors(
    value: dict[str, Any], kinds: Mapping[str, type[Section]]
) -> list[InitErrorDetails]:
    """Return the errors that a map has under every kind."""
    by_model: list[tuple[type[Section], dict[tuple[int | str, ...], InitErrorDetails]]] = []
    for kind, model in kinds.items():
        found = {}
        try:
            model.model_validate({**value, "kind": kind})
        except ValidationError as error:
            for line in error.errors(include_url=False):
                found[line["loc"]] = InitErrorDetails(
                    type=line["type"],
                    loc=line["loc"],
                    input=line["input"],
                    ctx=line.get("ctx", {}),
                )
        by_model.append((model, found))
    common = []
    for key in value:
        knowing = [found for model, found in by_model if key in model.model_fields]
        first, *others = knowing or [found for _, found in by_model]
        common += [
            line
            for loc, line in first.items()
            if loc[:1] == (key,) and all(loc in other for other in others)
        ]
    return common


def by_type(expected: str, choices: Mapping[type, Any]) -> BeforeValidator:
    """Let the YAML type of a value choose how it is read, so only one branch reports errors.

    Args:
        expected: What is allowed, as the error says it.
        choices: What to read each type of value as; None always passes.
    """
    adapters = {kind: TypeAdapter(choice) for kind, choice in choices.items()}

    def choose(value: Any) -> Any:
        if value in ([], ()):
            raise ValueError("must have at least one entry")
        for kind, adapter in adapters.items():
            if isinstance(value, kind) and not isinstance(value, bool):
                return adapter.validate_python(value)
        if value is None or isinstance(value, BaseModel):
            return value
        raise ValueError(f"must be {expected}")

    return BeforeValidator(choose)


def one_or_many(entry: Any, noun: str) -> BeforeValidator:
    """Read one entry, or a list of at least one entry."""
    entries = tuple[entry, ...]
    return by_type(f"{noun} or a list of them", {dict: entry, list: entries, tuple: entries})


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Return an entry or several entries as a tuple, and None as an empty tuple."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)
