"""Records that cannot be used: left out, counted, and a reason to stop where a source has more of them than allowed.

The bound is on the source's records, each counted once however often it is drawn. It does not depend on chance: a
source with fewer bad records than allowed never stops a run, one with more does as soon as that many have been met.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grain

from chestx_jax.errors import UserError

LOG = logging.getLogger(__name__)


@dataclass
class BadRecords:
    """The bad ones among `total` records, by number; more than `share` of them are an error."""

    share: float
    total: int
    log: Callable[[str], None] = LOG.warning
    numbers: set[int] = field(default_factory=set)

    def add(self, number: int, name: str, problem: object) -> None:
        """Counts and logs a bad record, unless it is counted already. Raises UserError where they are too many."""
        if number in self.numbers:
            return
        self.numbers.add(number)
        self.log(f"record {name} skipped ({len(self.numbers)} of {self.total} so far): {problem}")
        if too_many(len(self.numbers), self.total, self.share):
            raise UserError(
                f"{len(self.numbers)} of {self.total} records are bad, more than the allowed share of {self.share:g}; "
                f"the last is {name} ({problem}): fix the data or raise max_bad."
            )


def too_many(bad: int, total: int, share: float) -> bool:
    """Whether `bad` of `total` records are more than `share` of them."""
    return bad > share * total * (1 + 1e-9)  # 0.07 · 100 is a little more than 7, 0.29 · 100 a little less than 29


class Attempt(NamedTuple):
    """A record of a stream, as `value` where it could be used; else None and the problem."""

    source: int
    number: int  # of the record in its source
    name: str
    value: Any
    problem: str = ""


def attempt(encode: Callable[[], Any], source: int, number: int, name: str) -> Attempt:
    """`encode()`, with a UserError as the record's problem."""
    try:
        return Attempt(source, number, name, encode())
    except UserError as error:
        return Attempt(source, number, name, None, str(error))


class GoodRecords(grain.IterDataset):
    """The values of a stream of attempts, in order; `bad` counts the bad records of each source. The iterator's state
    holds those met so far, so that a resumed stream counts on."""

    def __init__(self, parent: grain.IterDataset, bad: Sequence[BadRecords]):
        super().__init__(parent)
        self._bad = bad

    def __iter__(self) -> grain.DatasetIterator:
        return _GoodRecordsIterator(self._parent.__iter__(), self._bad)


class _GoodRecordsIterator(grain.DatasetIterator):
    def __init__(self, parent, bad: Sequence[BadRecords]):
        super().__init__(parent)
        self._bad = bad
        self._known = [sorted(source.numbers) for source in bad]  # never changed in place: states share it

    def __next__(self):
        while True:
            record = next(self._parent)
            if not record.problem:
                return record.value
            self._bad[record.source].add(record.number, record.name, record.problem)
            self._known = [sorted(source.numbers) for source in self._bad]

    def get_state(self):
        return {"parent": self._parent.get_state(), "records": [bad.total for bad in self._bad], "bad": self._known}

    def set_state(self, state):
        """Raises UserError where the sources no longer have as many records as when the state was taken."""
        if "records" not in state:  # taken before bad records were counted in it
            return self._parent.set_state(state)
        totals = [bad.total for bad in self._bad]
        if state["records"] != totals:
            raise UserError(
                f"the sources had {_list(state['records'])} records when this run was saved and now have "
                f"{_list(totals)}: bring the old files back, or use another workdir."
            )
        for bad, numbers in zip(self._bad, state["bad"], strict=True):
            bad.numbers = set(numbers)
        self._known = state["bad"]
        return self._parent.set_state(state["parent"])


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
