"""Prompts in the order of the data, any number at a time, out of batches that are laid out ahead."""

from collections.abc import Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np

from chestx_jax.data.pipeline import PromptBatch
from chestx_jax.types import Array, Prompts, Tokens


class PromptStream(Iterator[PromptBatch]):
    """Whole batches by `next`; or with `take` as many prompts as are asked for, of which none is lost: the state knows
    how many of a batch are used up.

    `cut` says whether batches hold all of their rows. Where they hold this process's alone, none can be cut.
    """

    def __init__(self, batches: grain.DatasetIterator, cut: bool = True):
        self._batches, self._cut = batches, cut
        self._rest: PromptBatch | None = None  # what is left of a batch
        self._before: Any = None  # the place of that batch
        self._used = 0  # rows of it

    def __next__(self) -> PromptBatch:
        if self._rest is None:
            return next(self._batches)
        return self.take(self._used + len(self._rest.samples))

    def take(self, count: int) -> PromptBatch:
        """The next `count` prompts, at least one, padded to the longest bucket of the batches that they are from."""
        parts = []
        while count:
            if self._rest is None:
                self._before, self._used = self._batches.get_state(), 0
                self._rest = next(self._batches)
            size = len(self._rest.samples)
            here = min(count, size)
            parts.append(take_prompts(self._rest, range(here)))
            self._rest = take_prompts(self._rest, range(here, size)) if here < size else None
            self._used, count = self._used + here, count - here
        return join(parts)

    def get_state(self) -> dict:
        """The place in the data: that of the batches, or of a batch and how much of it is used."""
        return self._batches.get_state() if self._rest is None else {"batch": self._before, "used": self._used}

    def set_state(self, state: dict) -> None:
        """Goes on from a place. Where batches cannot be cut, the rest of one that was is left out."""
        self._rest = None
        if "used" not in state:
            self._batches.set_state(state)
            return
        self._batches.set_state(state["batch"])
        batch = next(self._batches)
        if self._cut:
            self._before, self._used = state["batch"], state["used"]
            self._rest = take_prompts(batch, range(self._used, len(batch.samples)))

    def start_prefetch(self) -> None:
        """Begins to lay out the next batches."""
        self._batches.start_prefetch()


def take_prompts(batch: PromptBatch, rows: Sequence[int]) -> PromptBatch:
    """Those rows of a batch."""
    index = np.asarray(rows, int)
    prompts, targets = jax.tree.map(lambda x: x[index], (batch.prompts, batch.targets))
    return PromptBatch(prompts, tuple(batch.samples[row] for row in rows), targets)


def replace_prompts(batch: PromptBatch, rows: Sequence[int], new: PromptBatch) -> PromptBatch:
    """The batch with the prompts of `new` in place of those rows."""
    order = np.arange(len(batch.samples))
    order[np.asarray(rows, int)] = len(order) + np.arange(len(rows))
    return take_prompts(join([batch, new]), order.tolist())


def join(batches: Sequence[PromptBatch]) -> PromptBatch:
    """The rows of several batches, padded to the longest bucket among them."""
    if len(batches) == 1:
        return batches[0]
    tokens = max(batch.prompts.tokens.ids.shape[1] for batch in batches)
    slots = max(batch.prompts.images.valid.shape[1] for batch in batches)
    padded = [_padded(batch.prompts, tokens, slots) for batch in batches]
    rows = lambda *parts: np.concatenate(parts)  # noqa: E731
    return PromptBatch(
        jax.tree.map(rows, *padded),
        tuple(sample for batch in batches for sample in batch.samples),
        jax.tree.map(rows, *(batch.targets for batch in batches)),
    )


def _padded(prompts: Prompts, tokens: int, slots: int) -> Prompts:
    """Rows of so many tokens and image slots, filled up as `tokens.rows` does."""

    def pad(x: Array, length: int, fill: int = 0) -> Array:
        widths = [(0, 0), (0, length - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]
        return np.pad(x, widths, constant_values=fill)

    text, images = prompts.tokens, prompts.images
    return Prompts(
        tokens=Tokens(
            ids=pad(text.ids, tokens),
            segments=pad(text.segments, tokens),
            positions=pad(text.positions, tokens),
            visual=pad(text.visual, tokens, -1),
        ),
        images=jax.tree.map(lambda x: pad(x, slots), images),
        length=prompts.length,
        index=prompts.index,
    )
