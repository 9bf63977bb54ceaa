"""Captions as numbers: which words count, the way there and back, and what a prompt is told."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from latent.data import arrays, dataset, preprocess, text
from latent.data.arrays import Split
from latent.data.dataset import Dataset
from latent.errors import UserError

CAPTIONS = ["Red heart", "red circle", "blue  HEART: dark-red, red", "blue square", "dark-red o\u2019clock", "o'clock!"]
KNOWN = ("red", "blue", "dark-red", "heart", "o'clock")


def test_words_are_lower_case_with_their_hyphens_and_apostrophes_and_count_from_two():
    """Most frequent first, then by the alphabet: a checkpoint's table is read by these places."""
    assert text.words("Medium-light (skin), O\u2019Clock #7 \u2014 pin\u0303ata_x") == [
        "medium-light",
        "skin",
        "o'clock",
        "7",
        "pi\u00f1ata",
        "x",
    ]
    assert text.vocabulary(CAPTIONS) == KNOWN
    assert text.vocabulary(reversed(CAPTIONS)) == KNOWN
    assert text.vocabulary([]) == ()


def test_a_text_goes_to_numbers_and_back_without_unknown_words():
    rows = text.numbers(CAPTIONS, KNOWN, length=5)
    assert rows.shape == (6, 5) and rows.dtype == np.int32
    back = [[KNOWN[place] for place in row if place >= 0] for row in rows]
    assert back == [[word for word in text.words(caption) if word in KNOWN] for caption in CAPTIONS]
    assert all((np.diff(np.sign(row + 1)) <= 0).all() for row in rows), "padding comes last"
    assert text.numbers([""], KNOWN).tolist() == [[-1]]
    assert text.numbers(["red " * 7], KNOWN).tolist() == [[0] * 7]


def test_a_prompt_leaves_out_what_it_does_not_know_and_says_so_in_one_line(caplog):
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(text.prompts(["Red heart"] * 2, KNOWN), [[0, 3], [0, 3]])
        np.testing.assert_array_equal(text.prompts([" "], KNOWN), [[-1]])
    assert not caplog.records
    np.testing.assert_array_equal(text.prompts(["blue hart"], KNOWN), [[1]])
    (record,) = caplog.records
    assert "hart (nearest: heart)" in record.getMessage() and "\n" not in record.getMessage()


@pytest.mark.parametrize(
    ("asked", "words"),
    [("hart zebra", r"--prompt='hart zebra': none.*hart \(nearest: heart\), zebra\."), ("!?", r"'!\?': no words")],
)
def test_a_prompt_of_which_nothing_is_known_is_refused(asked, words):
    with pytest.raises(UserError, match=words):
        text.prompts(["red", asked], KNOWN)


def made(captions):
    number = len(CAPTIONS)
    split = Split(np.zeros((number, 2), np.float32), np.zeros(number, np.int32), caption=captions)
    splits = dict.fromkeys(arrays.SPLITS, split)
    return Dataset("some", splits, 0, {}, {name: arrays.split_digest(split) for name in splits})


def test_a_captioned_set_carries_its_text_into_the_batch_and_stays_the_same_set():
    found = dataset.numbered(made(np.array(CAPTIONS)))
    assert found.vocabulary == KNOWN
    for name, split in found.splits.items():
        np.testing.assert_array_equal(split.arrays()["text"], text.numbers(CAPTIONS, KNOWN, length=4))
        assert arrays.split_digest(split) == found.digests[name], "codes and features are kept by this digest"
        (piece,) = arrays.pieces(split)
        np.testing.assert_array_equal(piece.text, split.text)
    settings = {"binarise": "none", "dequantise": False, "flip": False, "resize": None, "crop": None}
    assert preprocess.build(settings, found)[1].vocabulary == KNOWN
    plain = made(None)
    assert dataset.numbered(plain) is plain and "text" not in plain.splits["train"].arrays()
