"""A stream of batches of numbered prompts, as the pipeline lays them out."""

import jax
import numpy as np

from chestx_jax.data.pipeline import PromptBatch
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
