"""The jitted reading equals the plain one, whatever the text and however it is cut into tokens."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax import lexicon
from chestx_jax.errors import UserError
from chestx_jax.rewards.extract import extract
from tests.helpers.reward_texts import differences, text, tokens, vocabulary

WIDTH = 192


@pytest.fixture(scope="module")
def made():
    rng = random.Random(7)
    words = vocabulary(rng, [text(rng) for _ in range(500)], 1500)
    return words, lexicon.compile_tables(lexicon.load(), words)


def test_generated_texts_read_alike(made):
    words, tables = made
    rng = random.Random(1)
    for _ in range(3):
        found = differences([text(rng) for _ in range(256)], rng, tables, words, WIDTH)
        assert not found, "\n".join(found[:3])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(max_size=60), min_size=8, max_size=8), st.integers(0, 2**31))
def test_any_unicode_reads_alike(made, texts, seed):
    words, tables = made
    rng = random.Random(seed)
    found = differences([item.encode("utf-8", "ignore").decode() for item in texts], rng, tables, words, WIDTH)
    assert not found, "\n".join(found[:3])


def test_tokenisation_makes_no_difference(made):
    words, tables = made
    index = {data: number for number, data in enumerate(words) if data}
    data = b"<think> There is a small left pleural effusion. No pneumothorax is seen. </think><answer> A </answer>"
    rows = [tokens(random.Random(seed), data, index) for seed in range(16)]
    ids = np.zeros((16, WIDTH), np.int32)
    for row, numbers in enumerate(rows):
        ids[row, : len(numbers)] = numbers
    found = extract(tables, ids, np.asarray([len(row) for row in rows], np.int32), slots=4)
    assert np.asarray(found.valid).sum(1).tolist() == [2] * 16
    for name in ("concept", "polarity", "side", "step"):
        assert (np.asarray(getattr(found, name)) == np.asarray(getattr(found, name))[:1]).all()


def test_what_finds_no_slot_is_counted(made):
    _, tables = made
    data = b"<think> " + b"edema and effusion. " * 5 + b"</think>"
    ids = np.asarray([list(data)], np.int32)
    found = extract(tables, ids, np.asarray([len(data)], np.int32), slots=4)
    assert int(found.overflow[0]) == 6
    assert bool(np.asarray(found.valid).all())


def test_ids_beyond_the_vocabulary_and_after_the_length_read_as_nothing(made):
    _, tables = made
    data = list(b"<think> edema </think>")
    ids = np.asarray([[*data, 10**6, 10**6], [*data[:11], *data[11:], 10**6, 10**6]], np.int32)
    found = extract(tables, ids, np.asarray([len(data) + 2, 12], np.int32), slots=2)
    assert np.asarray(found.valid).sum(1).tolist() == [1, 0]


def test_tokens_that_hold_a_word_are_read_in_halves():
    inner = [b"</s>", b" \xf0\x9f\x99\x82\n\n", b" N\xc2\xba"]
    words = [bytes([byte]) for byte in range(256)] + inner + [b"q%dz" % number for number in range(7000)]
    tables = lexicon.compile_tables(lexicon.load(), words)
    assert tables.head.shape[1] == 1  # one step a token
    assert tables.split.any()
    rng = random.Random(5)
    pool = [*range(256, 259), *b" .,\nNe:"]
    rows = [[*(rng.choice(pool) for _ in range(12)), *b" edema. "] for _ in range(64)]
    ids = np.asarray(rows, np.int32)
    got = extract(tables, ids, np.full(64, ids.shape[1], np.int32), slots=4, think_only=False)
    exact = 0
    for row, numbers in enumerate(rows):
        data = b"".join(words[number] for number in numbers)
        plain = lexicon.extract.extract_bytes(lexicon.load(), data)
        same = [(f.certainty, f.step) for f in plain] == [
            (int(got.certainty[row, slot]), int(got.step[row, slot])) for slot in range(len(plain))
        ]
        exact += same
        assert same or sum(number in range(256, 259) for number in numbers) > 8
    assert exact > 50


def test_an_empty_vocabulary_is_refused():
    with pytest.raises(UserError, match="no token with bytes"):
        lexicon.compile_tables(lexicon.load(), [b"", b""])
