"""Texts keep every string, and need few objects for it."""

import os
import pickle

import pytest

from distill.data.texts import Texts

STRINGS = ["", "a", "犬 🐕", "a\nb\0c", os.fsdecode(b"\xff\xfe.png"), "a"]


def test_strings_come_back_as_they_were() -> None:
    texts = Texts()
    for string in STRINGS:
        texts.append(string)
    assert len(texts) == len(STRINGS)
    assert [texts[number] for number in range(len(texts))] == STRINGS
    copy = pickle.loads(pickle.dumps(texts))
    assert [copy[number] for number in range(len(copy))] == STRINGS


def test_there_is_nothing_beyond_the_end() -> None:
    texts = Texts()
    with pytest.raises(IndexError):
        texts[0]
