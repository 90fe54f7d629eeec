"""The jitted reading equals the host's, for any text in any tokenisation."""

import random

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax import lexicon
from chestx_jax.errors import UserError
from chestx_jax.findings.text import read_bytes
from chestx_jax.findings.tokens import extract
from tests.helpers import reward_texts
from tests.helpers.reward_texts import BYTES, differences, text, tokens, vocabulary

WIDTH = 192


@pytest.fixture(scope="module")
def compiled():
    """The bytes of each token, and the tables."""
    rng = random.Random(7)
    token_bytes = vocabulary(rng, [text(rng) for _ in range(500)], 1500)
    return token_bytes, lexicon.compile_tables(lexicon.load(), token_bytes)


def test_generated_texts_read_alike(compiled):
    token_bytes, tables = compiled
    rng = random.Random(1)
    for _ in range(3):
        different = differences([text(rng) for _ in range(256)], rng, tables, token_bytes, WIDTH)
        assert not different, "\n".join(different[:3])


def test_accelerators_read_alike(compiled, monkeypatch):
    """Trees and fixpoints, which only accelerators run, find what the loops of CPUs find."""
    token_bytes, tables = compiled
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arguments, cpu, default: default(*arguments))
    quickly = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # compiled, not run
    trees = jax.jit(extract.__wrapped__, static_argnames=("slots", "think_only"), compiler_options=quickly)
    monkeypatch.setattr(reward_texts, "extract", trees)
    rng = random.Random(11)
    different = differences([text(rng) for _ in range(256)], rng, tables, token_bytes, 64, modes=(False,))
    assert not different, "\n".join(different[:3])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(max_size=60), min_size=8, max_size=8), st.integers(0, 2**31))
def test_any_unicode_reads_alike(compiled, texts, seed):
    token_bytes, tables = compiled
    rng = random.Random(seed)
    different = differences(
        [item.encode("utf-8", "ignore").decode() for item in texts], rng, tables, token_bytes, WIDTH
    )
    assert not different, "\n".join(different[:3])


def test_tokenisation_makes_no_difference(compiled):
    token_bytes, tables = compiled
    index = {data: number for number, data in enumerate(token_bytes) if data}
    data = b"<think> There is a small left pleural effusion. No pneumothorax is seen. </think><answer> A </answer>"
    rows = [tokens(random.Random(seed), data, index) for seed in range(16)]
    ids = np.zeros((16, WIDTH), np.int32)
    for row, numbers in enumerate(rows):
        ids[row, : len(numbers)] = numbers
    findings = extract(tables, ids, np.asarray([len(row) for row in rows], np.int32), slots=4)
    assert np.asarray(findings.valid).sum(1).tolist() == [2] * 16
    for name in ("concept", "polarity", "side", "step"):
        assert (np.asarray(getattr(findings, name)) == np.asarray(getattr(findings, name))[:1]).all()


def test_findings_beyond_the_slots_are_counted(compiled):
    _, tables = compiled
    data = b"<think> " + b"edema and effusion. " * 5 + b"</think>"
    ids = np.asarray([list(data)], np.int32)
    findings = extract(tables, ids, np.asarray([len(data)], np.int32), slots=4)
    assert int(findings.overflow[0]) == 6
    assert bool(np.asarray(findings.valid).all())


def test_ids_beyond_the_vocabulary_and_after_the_length_read_as_nothing(compiled):
    _, tables = compiled
    data = list(b"<think> edema </think>")
    ids = np.asarray([[*data, 10**6, 10**6], [*data[:11], *data[11:], 10**6, 10**6]], np.int32)
    findings = extract(tables, ids, np.asarray([len(data) + 2, 12], np.int32), slots=2)
    assert np.asarray(findings.valid).sum(1).tolist() == [1, 0]


def test_tokens_that_hold_a_word_are_read_in_halves():
    inner = [b"</s>", b" \xf0\x9f\x99\x82\n\n", b" N\xc2\xba"]
    token_bytes = [*BYTES, *inner, *(b"q%dz" % number for number in range(7000))]
    tables = lexicon.compile_tables(lexicon.load(), token_bytes)
    assert tables.head.shape[1] == 1  # one step a token
    assert tables.split.any()
    rng = random.Random(5)
    pool = [*range(256, 259), *b" .,\nNe:"]
    rows = [[*(rng.choice(pool) for _ in range(12)), *b" edema. "] for _ in range(64)]
    ids = np.asarray(rows, np.int32)
    jitted = extract(tables, ids, np.full(64, ids.shape[1], np.int32), slots=4, think_only=False)
    exact = 0
    for row, numbers in enumerate(rows):
        data = b"".join(token_bytes[number] for number in numbers)
        plain = read_bytes(lexicon.load(), [data])[0].findings
        same = [(f.certainty, f.step) for f in plain] == [
            (int(jitted.certainty[row, slot]), int(jitted.step[row, slot])) for slot in range(len(plain))
        ]
        exact += same
        assert same or sum(number in range(256, 259) for number in numbers) > 8
    assert exact > 50


def test_an_empty_vocabulary_is_refused():
    with pytest.raises(UserError, match="no token with bytes"):
        lexicon.compile_tables(lexicon.load(), [b"", b""])
