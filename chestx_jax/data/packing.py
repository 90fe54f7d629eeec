"""First-fit packing of a stream of examples into batches, resumable at every batch."""

from collections.abc import Callable, Iterator
from typing import Any

import grain

from chestx_jax.tokens.rows import Example, RowsConfig


class PackedBatches(grain.IterDataset):
    """Groups examples into `count` rows: each goes, in order, to the first row with room; the first that fits nowhere
    closes the batch and opens the next. No example is dropped, so packing does not bias the mixture."""

    def __init__(
        self, parent: grain.IterDataset, count: int, rows: RowsConfig, emit: Callable[[list[list[Example]]], Any]
    ):
        super().__init__(parent)
        self._plan = (count, rows, emit)

    def __iter__(self) -> grain.DatasetIterator:
        return _PackedIterator(self._parent.__iter__(), *self._plan)


class _PackedIterator(grain.DatasetIterator):
    """State: where the parent stood before the example that opens the next batch."""

    def __init__(self, parent, count: int, rows: RowsConfig, emit):
        super().__init__(parent)
        self._count, self._rows, self._emit = count, rows, emit
        self._resume = parent.get_state()
        self._waiting: Example | None = None

    def __next__(self):
        rows: list[list[Example]] = [[] for _ in range(self._count)]
        for example, state in self._stream():
            row_with_room = next((row for row in rows if fits(row, example, self._rows)), None)
            if row_with_room is None:
                self._waiting, self._resume = example, state
                break
            row_with_room.append(example)
        return self._emit(rows)

    def _stream(self) -> Iterator[tuple[Example, Any]]:
        if self._waiting is not None:
            yield self._waiting, self._resume
        while True:
            state = self._parent.get_state()
            yield next(self._parent), state

    def get_state(self):
        return {"parent": self._resume}

    def set_state(self, state):
        self._waiting, self._resume = None, state["parent"]
        self._parent.set_state(state["parent"])


def fits(row: list[Example], example: Example, rows: RowsConfig) -> bool:
    """Whether the row has tokens and image slots left for the example; an empty row takes any (see `checked_size`)."""
    tokens = sum(len(other.ids) for other in row) + len(example.ids)
    slots = sum(len(other.images) for other in row) + len(example.images)
    return not row or (tokens <= rows.length and slots <= rows.image_slots)
