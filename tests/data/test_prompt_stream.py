"""Prompts taken in any numbers are those of the stream, each once and in order, from any place on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.data.prompt_stream import PromptStream, replace_prompts
from tests.helpers.prompt_batches import SIZE, Batches, check


@settings(max_examples=15)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=6), stop=st.integers(0, 5))
def test_prompts_are_taken_in_order_and_a_stream_goes_on_anywhere(counts, stop):
    stream, done = PromptStream(Batches()), 0
    for i, count in enumerate(counts):
        if i == stop:
            state = stream.get_state()
            stream = PromptStream(Batches())
            stream.set_state(state)
        check(stream.take(count), range(done, done + count))
        done += count
    check(next(stream), range(done, done + SIZE))


def test_whole_batches_are_handed_through():
    stream = PromptStream(Batches(), cut=False)
    check(next(stream), range(SIZE))
    assert stream.get_state() == {"place": 1}
    stream.set_state({"batch": {"place": 4}, "used": 1})  # what this process cannot cut is left out
    check(next(stream), range(5 * SIZE, 6 * SIZE))


@pytest.mark.parametrize("rows", [[0], [1, 3], [0, 1, 2, 3]])
def test_replaced_prompts_are_in_their_places(rows):
    stream = PromptStream(Batches())
    batch = replace_prompts(next(stream), rows, stream.take(len(rows)))
    numbers = np.arange(SIZE)
    numbers[rows] = SIZE + np.arange(len(rows))
    check(batch, numbers.tolist())
