"""Label sets: their prompts, and the vectors of labels."""

import numpy as np
import pytest

from distill.labels.label_set import LabelSet, average_prompts
from export.runtime.errors import DataError


def test_prompts_go_label_by_label_and_underscores_are_spaces() -> None:
    labels = LabelSet(("red_cat", "T-shirt"), ("a {}.", "many {}s"))
    assert labels.prompts == ("a red cat.", "many red cats", "a T-shirt.", "many T-shirts")


def test_prompts_take_either_kind_of_place_and_need_one() -> None:
    assert LabelSet(("red_cat",), ("a {c}.", "a {}.")).prompts == ("a red cat.", "a red cat.")
    with pytest.raises(DataError, match=r"templates: 'a cat\.' has no \{\}"):
        _ = LabelSet(("cat",), ("a cat.",)).prompts


def test_a_label_is_the_normalised_mean_of_its_prompts() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(6, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = LabelSet(("a", "b"), ("{} 1", "{} 2", "{} 3"))
    found = labels.embed(lambda texts: rows[: len(texts)].astype(np.float32))
    expected = np.stack([rows[:3].mean(axis=0), rows[3:].mean(axis=0)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert found is not None
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)


def test_one_prompt_a_label_is_left_as_it_is() -> None:
    rows = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)
    assert np.array_equal(average_prompts(rows, 1), rows)


def test_without_a_text_tower_there_are_no_vectors() -> None:
    assert LabelSet(("a", "b")).embed(lambda _: None) is None
