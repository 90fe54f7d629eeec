"""Prompts taken in any numbers are those of the stream, each once and in order, from any place on."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.data.pipeline import PromptBatch
from chestx_jax.data.prompt_stream import PromptStream, replace_prompts
from tests.helpers.tiny_rows import prompt_examples, prompt_rows

SIZE = 4
LENGTHS = (11, 20, 32)  # buckets that the batches are padded to, in turn


class Batches:
    """Batches of four prompts numbered on; every other has a bucket of its own."""

    def __init__(self):
        self.place = 0

    def __next__(self):
        examples = prompt_examples()
        length = LENGTHS[self.place % 3]
        fitting = [example if len(example.ids) <= length else examples[2] for example in examples]
        prompts = prompt_rows(fitting, length)
        numbers = np.arange(SIZE * self.place, SIZE * (self.place + 1), dtype=np.int32)
        self.place += 1
        return PromptBatch(prompts.replace(index=numbers), tuple(f"sample {n}" for n in numbers), {"worth": numbers})

    def get_state(self):
        return {"place": self.place}

    def set_state(self, state):
        self.place = state["place"]


def check(batch, numbers):
    """The batch holds the prompts of those numbers, as the stream has them."""
    assert batch.prompts.index.tolist() == batch.targets["worth"].tolist() == list(numbers)
    assert list(batch.samples) == [f"sample {n}" for n in numbers]
    for row, number in enumerate(numbers):
        source = Batches()
        source.place = number // SIZE
        one = jax.tree.map(lambda x, n=number: x[n % SIZE], next(source).prompts)
        here = jax.tree.map(lambda x, row=row: x[row], batch.prompts)
        length, slots = one.tokens.ids.shape[0], one.images.valid.shape[0]
        jax.tree.map(lambda x, y, n=length: np.testing.assert_array_equal(x[:n], y), here.tokens, one.tokens)
        jax.tree.map(lambda x, y, n=slots: np.testing.assert_array_equal(x[:n], y), here.images, one.images)
        assert not here.tokens.segments[length:].any()
        assert not here.images.valid[slots:].any()
        assert (here.tokens.visual[length:] == -1).all()


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
