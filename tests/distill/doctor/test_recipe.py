"""What the doctor finds in a recipe."""

from collections.abc import Sequence
from typing import Any

import pytest

from distill.doctor.finding import Finding
from distill.doctor.recipe import examine_batch, examine_entries, examine_length
from distill.recipe.config import RunConfig


def levels(findings: Sequence[Finding]) -> list[str]:
    return [finding.level for finding in findings]


@pytest.mark.parametrize(
    ("batch_size", "terms", "level"),
    [
        (63, ["contrastive"], "wrong"),
        (16, ["kl_divergence", "interactive_contrastive"], "wrong"),
        (16, ["sigmoid_contrastive"], "wrong"),
        (64, ["contrastive"], "fine"),
        (16, ["kl_divergence", "embedding_alignment"], "fine"),
        # Pairs are compared with the whole corpus.
        (16, ["corpus_contrastive"], "fine"),
    ],
)
def test_a_small_batch_with_a_contrastive_term(
    batch_size: int, terms: list[str], level: str
) -> None:
    assert levels(examine_batch(batch_size, terms)) == [level]


def config(**changes: Any) -> RunConfig:
    return RunConfig.model_validate({"teacher": {"model": "a/b"}, **changes})


@pytest.mark.parametrize(
    ("train", "levels_found"),
    [
        ({"warmup_steps": 51}, ["note"]),
        ({"warmup_steps": 50}, ["fine"]),
        ({"warmup_steps": 0, "alignment_first_steps": 100}, ["wrong"]),
        ({"warmup_steps": 100, "alignment_first_steps": 100}, ["note", "wrong"]),
    ],
)
def test_a_run_that_ends_before_it_begins(train: dict[str, int], levels_found: list[str]) -> None:
    losses = {"embedding_alignment": 1, "kl_divergence": 1}
    recipe = config(train=train, losses=losses)
    assert levels(examine_length(recipe, steps=100, pictures=1000)) == levels_found


def test_how_often_a_run_sees_a_picture() -> None:
    recipe = config(train={"batch_size": 50})
    (finding,) = examine_length(recipe, steps=200, pictures=4000)
    assert finding.text == "200 steps, 2.5 passes over 4,000 pictures"


def test_sources_that_may_be_a_mistake() -> None:
    mine = {"kind": "table", "path": "a.csv", "weight": 2.0}
    plain = {"kind": "table", "path": "a.csv"}
    other = {"kind": "table", "path": "b.csv"}
    (scenes_found,) = examine_entries(config())
    assert "procedural" in scenes_found.text
    assert examine_entries(config(data={"train": mine, "validation": other})) == []
    (same,) = examine_entries(config(data={"train": [mine, other], "validation": plain}))
    assert (same.about, same.level) == ("data.validation", "note")
    entry = {"name": "flattered", "task": "retrieval", "data": plain}
    (measured,) = examine_entries(config(data={"train": mine}, evaluate=entry))
    assert measured.about == "evaluate flattered"
