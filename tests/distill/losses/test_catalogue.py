"""Each row of the catalogue has its function, its documentation and its test cases.

A term that is only half added fails here, and the failure says what is missing.
"""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

import pytest

from distill.losses.catalogue import TERMS, Choice, Number, TermField, TermRow
from tests.house import ROOT, public_names

ROOM = ROOT / "distill" / "losses"
PAGE = ROOT / "docs" / "losses.md"
# A section that a call heads, up to the next section.
_SECTION = re.compile(r"^## `(.*?)`\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
# Modules without a function of a term.
_NO_FAMILY = {"__init__", "catalogue", "embeddings", "presets", "weighted"}


def faults(row: TermRow) -> Iterator[str]:
    """Yield what a term lacks, and what contradicts its row."""
    yield from function_faults(row)
    yield from row_faults(row)
    yield from page_faults(row)
    yield from case_faults(row)


def function_faults(row: TermRow) -> Iterator[str]:
    """Compare a row with the signature of its function."""
    file = f"distill/losses/{row.family}.py"
    if not (ROOT / file).exists():
        yield f"{file} is missing, which the row names as the family"
        return
    function = getattr(importlib.import_module(f"distill.losses.{row.family}"), row.name, None)
    if function is None:
        yield f"{file} has no function {row.name}"
        return
    parameters = inspect.signature(function).parameters
    stated = [*row.inputs, *row.arguments]
    for name in [name for name in parameters if name not in stated]:
        yield f"{row.name}() takes {name}, which its row lacks"
    for name in [name for name in stated if name not in parameters]:
        yield f"its row says {name}, which {row.name}() lacks"
    if set(parameters) == set(stated) and list(parameters) != stated:
        yield f"{row.name}() takes {list(parameters)}, and its row says {stated}"
    for field in row.fields:
        parameter = parameters.get(field.name)
        if not field.argument or parameter is None:
            continue
        if parameter.default != field.default:
            yield f"{field.name} is {parameter.default} in {row.name}(), {field.default} in its row"
        names = field.values.names if isinstance(field.values, Choice) else ()
        choices = get_args(parameter.annotation)
        if choices != names:
            yield f"{field.name} is one of {choices} in {row.name}(), {names} in its row"


def row_faults(row: TermRow) -> Iterator[str]:
    """Look for contradictions inside a row."""
    options = {field.name for field in row.fields}
    corpus = {"corpus_image", "corpus_text"} & set(row.inputs)
    if bool(corpus) != (row.compared is not None):
        yield "compared and the inputs from the corpus go together"
    for found, name in (
        (row.needs_corpus, "samples"),
        (row.needs_prompts, "bank"),
        (row.needs_prompts, "bank_size"),
        (row.masked, "mask_ratio"),
        (row.masked, "mask_patch"),
    ):
        if found != (name in options):
            yield f"the row {'needs' if found else 'has no use for'} the field {name}"
    if "scale" in options and not row.needs_teacher:
        yield "the field scale is about a teacher, and the term has none"


def page_faults(row: TermRow) -> Iterator[str]:
    """Look for a term's section on the page of the losses."""
    call = signature(row)
    sections = dict(_SECTION.findall(PAGE.read_text("utf-8")))
    if call not in sections:
        yield f"docs/losses.md has no section ## `{call}`"
        return
    for word in ("When", "Mind", "Source"):
        if f"- *{word}.*" not in sections[call]:
            yield f"the section of {row.name} in docs/losses.md has no *{word}.*"


def signature(row: TermRow) -> str:
    """Return a term's call as in the headings of the page."""
    defaults = [
        f"{field.name}={field.default!r}".replace("'", '"')
        for field in row.fields
        if field.argument
    ]
    inputs = [name + ("=None" if name == "groups" else "") for name in row.inputs]
    return f"{row.name}({', '.join([*inputs, *defaults])})"


def case_faults(row: TermRow) -> Iterator[str]:
    """Look for a term's formulas and arguments in the test cases."""
    from tests.distill.losses import references

    file = "tests/distill/losses/references.py"
    for name in (row.name, f"torch_{row.name}"):
        if not hasattr(references, name):
            yield f"{file} has no formula {name}()"
    cases = references.ARGUMENTS.get(row.name, [])
    if {} not in cases:
        yield f"{file}: ARGUMENTS has no {row.name} with its defaults"
    for argument in row.arguments:
        if not any(argument in case for case in cases):
            yield f"{file}: ARGUMENTS has no {row.name} with another {argument}"


@pytest.mark.parametrize("row", TERMS.values(), ids=TERMS)
def test_a_term_is_complete(row: TermRow) -> None:
    assert list(faults(row)) == []


def test_every_function_of_a_family_has_a_row() -> None:
    families = [
        path
        for path in sorted(ROOM.glob("*.py"))
        if not path.stem.startswith("_") and path.stem not in _NO_FAMILY
    ]
    found = {(path.stem, name) for path in families for name in public_names(path)}
    missing = without_row(found)
    assert not missing, "\n".join(missing)


def without_row(functions: set[tuple[str, str]]) -> list[str]:
    """Return one line for each function of a family that no row describes."""
    return [
        f"distill/losses/{family}.py: {name} has no row in distill/losses/catalogue.py; add it to "
        "TERMS, or start its name with an underscore if it is not a term"
        for family, name in sorted(functions - {(row.family, row.name) for row in TERMS.values()})
    ]


def test_a_function_without_a_row_is_named() -> None:
    assert without_row({("alignment", "embedding_alignment"), ("alignment", "made_up")}) == [
        (
            "distill/losses/alignment.py: made_up has no row in distill/losses/catalogue.py; "
            "add it to TERMS, or start its name with an underscore if it is not a term"
        )
    ]


def test_formulas_and_cases_belong_to_rows() -> None:
    from tests.distill.losses.references import ARGUMENTS, ONE_PASS_TERMS

    file = "tests/distill/losses/references.py"
    unknown = [
        f"{file}: {table} has {name}, but TERMS has no such row"
        for table, names in (("ARGUMENTS", ARGUMENTS), ("ONE_PASS_TERMS", ONE_PASS_TERMS))
        for name in sorted({*names} - {*TERMS})
    ]
    assert not unknown, "\n".join(unknown)


ALIGNMENT = TERMS["embedding_alignment"]
TEMPERATURE = TermField("temperature", "…", Number(above=0), default=2.0, argument=True)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (
            replace(ALIGNMENT, family="nowhere"),
            "distill/losses/nowhere.py is missing, which the row names as the family",
        ),
        (
            replace(ALIGNMENT, name="made_up"),
            "distill/losses/alignment.py has no function made_up",
        ),
        (
            replace(ALIGNMENT, name="made_up"),
            'docs/losses.md has no section ## `made_up(student, teacher, kind="cosine")`',
        ),
        (
            replace(ALIGNMENT, name="made_up"),
            "tests/distill/losses/references.py has no formula torch_made_up()",
        ),
        (
            replace(ALIGNMENT, name="made_up"),
            "tests/distill/losses/references.py: ARGUMENTS has no made_up with its defaults",
        ),
        (
            replace(ALIGNMENT, fields=(*ALIGNMENT.fields, TEMPERATURE)),
            "its row says temperature, which embedding_alignment() lacks",
        ),
        (
            replace(ALIGNMENT, fields=(*ALIGNMENT.fields, TEMPERATURE)),
            (
                "tests/distill/losses/references.py: ARGUMENTS has no embedding_alignment with "
                "another temperature"
            ),
        ),
        (
            replace(ALIGNMENT, inputs=("student",)),
            "embedding_alignment() takes teacher, which its row lacks",
        ),
        (
            replace(ALIGNMENT, inputs=("teacher", "student")),
            (
                "embedding_alignment() takes ['student', 'teacher', 'kind'], and its row says"
                " ['teacher', 'student', 'kind']"
            ),
        ),
        (
            replace(TERMS["relational"], fields=(TEMPERATURE,)),
            "temperature is 1.0 in relational(), 2.0 in its row",
        ),
        (
            replace(
                ALIGNMENT,
                fields=(TermField("kind", "…", Choice(("mse",)), default="mse", argument=True),),
            ),
            (
                "kind is one of ('cosine', 'mse', 'smooth_l1') in embedding_alignment(), ('mse',) "
                "in its row"
            ),
        ),
        (replace(TERMS["corpus_kl"], compared=None), "the row has no use for the field samples"),
        (replace(TERMS["prompt_kl"], fields=()), "the row needs the field bank"),
        (replace(ALIGNMENT, masked=False), "the row has no use for the field mask_ratio"),
    ],
)
def test_faults_say_what_is_missing(row: TermRow, fault: str) -> None:
    assert fault in list(faults(row))


# What the checks of a recipe know of each term; a new term is not listed here.
NEEDS: Mapping[str, Mapping[str, Any]] = {
    "kl_divergence": {"needs_teacher": True, "needs_texts": True},
    "embedding_alignment": {"needs_teacher": True, "equal_width": True},
    "contrastive": {"needs_pairs": True, "needs_texts": True},
    "interactive_contrastive": {
        "needs_teacher": True,
        "needs_pairs": True,
        "needs_texts": True,
        "equal_width": True,
    },
    "relational": {"needs_teacher": True},
    "soft_target": {"needs_texts": True},
    "sigmoid_contrastive": {"needs_pairs": True, "needs_texts": True},
    "prompt_kl": {
        "needs_teacher": True,
        "equal_width": True,
        "needs_images": True,
        "needs_prompts": True,
    },
    "corpus_kl": {"needs_teacher": True, "equal_width": True, "needs_corpus": True},
    "corpus_contrastive": {
        "needs_teacher": True,
        "equal_width": True,
        "needs_corpus": True,
        "needs_partners": True,
    },
    "corpus_relational": {"needs_teacher": True, "equal_width": True, "needs_corpus": True},
}
CAPTIONS = {"corpus_kl", "corpus_contrastive"}


@pytest.mark.parametrize("name", NEEDS)
def test_what_a_term_needs(name: str) -> None:
    row, needs = TERMS[name], NEEDS[name]
    for need in (
        *("needs_teacher", "needs_texts", "needs_images", "needs_pairs", "needs_corpus"),
        *("needs_partners", "needs_prompts", "equal_width"),
    ):
        assert getattr(row, need) == needs.get(need, False), need
    assert row.needs_captions == (row.needs_texts or name in CAPTIONS)


def test_flags_of_single_terms() -> None:
    def named(flag: str) -> set[str]:
        return {name for name in NEEDS if getattr(TERMS[name], flag)}

    assert named("each_teacher") == {"kl_divergence", "relational"}
    assert named("masked") == named("aligns") == {"embedding_alignment"}
    assert named("within_batch") == {
        "contrastive",
        "interactive_contrastive",
        "sigmoid_contrastive",
        "soft_target",
    }
    assert {name: TERMS[name].compared for name in NEEDS if TERMS[name].compared} == {
        "corpus_kl": "other",
        "corpus_contrastive": "other",
        "corpus_relational": "own",
    }


def test_a_run_has_one_bank_of_prompts() -> None:
    # `Banks` holds one, and so do the digest of a run and its cache.
    assert len([row for row in TERMS.values() if row.needs_prompts]) == 1
