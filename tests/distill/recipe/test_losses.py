"""The losses of a recipe: presets, terms that override them, and mistakes."""

import inspect
from typing import Any, get_args

import pytest

from distill.losses.catalogue import TERMS
from distill.losses.presets import PRESETS
from distill.recipe.losses import ENTRIES, PresetName, expand
from tests.distill.recipe.config_pieces import config, mistakes
from tests.lazy import lazy_imports

with lazy_imports():
    from distill.losses.weighted import term_function


def test_entries_and_presets_name_terms_of_the_catalogue() -> None:
    assert set(ENTRIES) == set(TERMS)
    assert set(get_args(PresetName)) == set(PRESETS)
    for preset in PRESETS.values():
        assert set(preset.terms) <= set(TERMS)
        assert preset.source


def weights(losses: Any) -> dict[str, float]:
    return {name: term.weight for name, term in config(losses=losses).terms.items()}


def test_a_preset_by_name() -> None:
    assert config().terms == config(losses="default").terms
    terms = config(losses="clip_kd").terms
    assert terms.keys() == {
        "contrastive",
        "embedding_alignment",
        "kl_divergence",
        "interactive_contrastive",
    }
    assert dict(terms["kl_divergence"].arguments) == {"temperature": 1.0}
    assert dict(terms["embedding_alignment"].arguments) == {"kind": "mse"}
    assert terms["embedding_alignment"].row.equal_width
    assert terms["kl_divergence"].row.needs_texts
    assert terms["kl_divergence"].schedule == "none"


def test_a_map_replaces_the_preset_field_by_field() -> None:
    losses = {"preset": "mobileclip", "kl_divergence": {"temperature": 2}, "soft_target": 0.5}
    assert weights(losses) == {"kl_divergence": 0.75, "contrastive": 0.25, "soft_target": 0.5}
    assert config(losses=losses).terms["kl_divergence"].arguments == {"temperature": 2.0}
    only_weight = {"preset": "clip_kd", "embedding_alignment": 2}
    assert config(losses=only_weight).terms["embedding_alignment"].arguments == {"kind": "mse"}


def test_weight_0_removes_a_term() -> None:
    assert weights({"preset": "mobileclip", "kl_divergence": 0}) == {"contrastive": 0.25}
    assert weights({"preset": "mobileclip", "kl_divergence": {"weight": 0}}) == {
        "contrastive": 0.25
    }
    (line,) = mistakes(losses={"contrastive": 0})
    assert line.startswith("r.yaml: losses: no term is left")


def test_a_map_without_preset_has_only_its_own_terms() -> None:
    assert weights({"contrastive": 1}) == {"contrastive": 1.0}


def test_a_schedule_is_merged_and_may_begin_at_0() -> None:
    losses = {
        "preset": "dime",
        "kl_divergence": {"schedule": {"kind": "cosine", "end": 0.1}},
        "contrastive": {"weight": 0, "schedule": {"kind": "linear", "end": 1}},
    }
    terms = config(losses=losses).terms
    assert (terms["kl_divergence"].weight, terms["kl_divergence"].schedule) == (0.7, "cosine")
    assert terms["kl_divergence"].end == 0.1
    assert (terms["contrastive"].weight, terms["contrastive"].end) == (0.0, 1.0)


def test_a_term_without_weight_anywhere_is_a_mistake() -> None:
    (line,) = mistakes(losses={"kl_divergence": {"temperature": 2}})
    assert line.startswith("r.yaml: losses.kl_divergence.weight: missing, must be a number ≥ 0")


@pytest.mark.parametrize("preset", PRESETS)
def test_expanding_a_preset_gives_the_same_terms(preset: str) -> None:
    expanded = {name: entry.model_dump() for name, entry in expand(preset).items()}
    assert config(losses=expanded).terms == config(losses=preset).terms


def test_the_published_presets() -> None:
    assert weights("clip_kd") == {
        "contrastive": 1.0,
        "embedding_alignment": 7.8125,
        "kl_divergence": 1.0,
        "interactive_contrastive": 1.0,
    }
    assert weights("mobileclip") == {"contrastive": 0.25, "kl_divergence": 0.75}
    assert weights("tinyclip") == {"kl_divergence": 1.0}
    assert set(weights("dime")) == {"kl_divergence", "prompt_kl", "relational"}
    assert not any(TERMS[name].needs_pairs for name in weights("dime"))
    assert config(losses="tinyclip").terms["kl_divergence"].options == {"scale": "teacher"}


def test_arguments_are_parameters_of_the_function_and_options_are_not() -> None:
    for name, term in config(losses=dict.fromkeys(TERMS, 1)).terms.items():
        known = inspect.signature(term_function(name)).parameters
        assert set(term.arguments) <= set(known)
    terms = config(losses=dict.fromkeys(TERMS, 1)).terms
    assert terms["kl_divergence"].options == {"scale": "own"}
    assert terms["embedding_alignment"].options == {"mask_ratio": 0.0, "mask_patch": 16}
    assert terms["prompt_kl"].options == {"bank": None, "bank_size": 1024}
    assert terms["corpus_kl"].options == {"samples": 16384, "scale": "own"}


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({"embedding_alignment": {"weight": 1, "mask_ratio": 1}}, "embedding_alignment.mask_ratio"),
        ({"kl_divergence": {"weight": 1, "scale": "mine"}}, "kl_divergence.scale"),
        ({"kl_divergence": {"weight": 1, "temperature": 0}}, "kl_divergence.temperature"),
        ({"prompt_kl": {"weight": 1, "bank_size": 0}}, "prompt_kl.bank_size"),
        ({"corpus_kl": {"weight": 1, "samples": 0}}, "corpus_kl.samples"),
        ({"relational": {"weight": 1, "scale": "own"}}, "relational.scale"),
        ({"corpus_kl": {"weight": 1, "scale": 0}}, "corpus_kl.scale"),
    ],
)
def test_values_out_of_range_are_mistakes(entry: dict[str, Any], path: str) -> None:
    (line,) = mistakes(losses=entry)
    assert line.startswith(f"r.yaml: losses.{path}:")


def test_terms_over_the_corpus_need_the_cache() -> None:
    (line,) = mistakes(losses={"corpus_kl": 1}, train={"teacher": "live"})
    assert line.startswith(
        "r.yaml: losses.corpus_kl: draws from the teacher's cache, but train.teacher is live"
    )
    config(losses={"corpus_kl": 1})


@pytest.mark.parametrize("losses", ["default", {"preset": "default", "contrastive": 1}])
def test_the_error_of_a_preset_names_presets_that_need_no_cache(losses: Any) -> None:
    (line,) = mistakes(losses=losses, train={"teacher": "live"})
    assert line.startswith("r.yaml: losses: corpus_kl and corpus_contrastive and")
    way_out = "set it to cached, or choose a preset that needs no cache: "
    assert way_out in line
    for name in line.partition(way_out)[2].split(", "):
        config(losses=name, train={"teacher": "live"})
    without = dict.fromkeys(("corpus_kl", "corpus_contrastive", "corpus_relational"), 0)
    config(losses={"preset": "default", **without}, train={"teacher": "live"})


def test_a_term_that_the_recipe_adds_to_a_preset_has_its_own_error() -> None:
    losses = {"preset": "clip_kd", "corpus_kl": 1}
    (line,) = mistakes(losses=losses, train={"teacher": "live"})
    assert line.startswith(
        "r.yaml: losses.corpus_kl: draws from the teacher's cache, but train.teacher is live"
    )


def test_a_student_without_image_tower_takes_no_term_of_pictures() -> None:
    (line,) = mistakes(student={"image": None}, losses={"prompt_kl": 1})
    assert line == (
        "r.yaml: losses.prompt_kl: needs an image tower, but the student has none; remove it"
    )
    masked = {"embedding_alignment": {"weight": 1, "mask_ratio": 0.75}}
    (line,) = mistakes(student={"image": None}, losses=masked)
    assert line.startswith("r.yaml: losses.embedding_alignment.mask_ratio: found 0.75")
    config(student={"text": None}, losses={**masked, "prompt_kl": 1, "relational": 1})
