"""The input pipelines: packed batches for SFT, prompts with their references for GRPO, prompts for evaluation.

Each is a Grain dataset whose iterator can be checkpointed; films are decoded in threads while the device works.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import grain
import numpy as np

from chestx_jax.data.mixture import Source, draw
from chestx_jax.data.packing import PackedBatches
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.tokens import chat
from chestx_jax.tokens import rows as layout
from chestx_jax.tokens.films import load_image
from chestx_jax.tokens.patches import ImageSpec, patches
from chestx_jax.tokens.rows import Example, RowsConfig, checked_size
from chestx_jax.tokens.tokenizer import SpecialIds
from chestx_jax.types import Batch, Prompts, RewardTargets

STREAM = 1 << 40  # numbers of the endless training stream
LOG = logging.getLogger(__name__)


class Encoder(NamedTuple):
    """What turns a sample into tokens and patches."""

    tokenizer: Any
    special: SpecialIds
    image: ImageSpec
    blind: bool = False  # every film replaced by zeros: the text-only baseline


@dataclass
class BadRecords:
    """Counts records that had to be skipped, and stops the run when they are more than `share` of those seen."""

    share: float
    seen: int = 0
    ids: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def guarded(self, make: Callable[[Sample], Any], sample: Sample) -> Any:
        """`make(sample)`, or None for a bad record, which is logged with its id."""
        try:
            made, problem = make(sample), None
        except UserError as error:
            made, problem = None, error
        with self.lock:
            self.seen += 1
            if problem is not None:
                self.ids.append(sample.id)
                LOG.warning("record %s skipped (%d of %d so far): %s", sample.id, len(self.ids), self.seen, problem)
            if len(self.ids) > max(self.share * self.seen, self.share * 100):
                raise UserError(
                    f"{len(self.ids)} of {self.seen} records are bad, more than the allowed share of {self.share:g}; "
                    f"the last is {self.ids[-1]}: mend the data or raise max_bad."
                )
        return made


def encode(encoder: Encoder, sample: Sample, reasoning: bool, with_target: bool, seen: bool = False) -> Example:
    """A sample as tokens, positions and patches, taught at its films where `seen` (see SourceConfig).

    Raises UserError for a film that cannot be read.
    """
    films = [patches(load_image(path), encoder.image) for path in sample.images]
    if encoder.blind:
        films = [(np.zeros_like(values), grid) for values, grid in films]
    if seen:
        words = [f" {word}" for word in sample.answer.split()]
        return layout.encode_seen(encoder.tokenizer, encoder.special, films, words, encoder.image.merge_size)
    target = chat.target_text(sample.steps, sample.answer, reasoning) if with_target else None
    return layout.encode(
        encoder.tokenizer, encoder.special, sample.question, films, reasoning, target, encoder.image.merge_size
    )


def supervised_batches(
    sources: Sequence[Source],
    encoder: Encoder,
    count: int,
    rows: RowsConfig,
    seed: int,
    bad: BadRecords,
    shard: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator:
    """Endless packed batches of `count` rows (this process's share: `shard` is its number and how many there are).

    Raises UserError where no source has a weight, and, while iterating, where too many records are bad (a record that
    no row can hold is one).
    """
    if not any(source.weight > 0 for source in sources):
        raise UserError("There is nothing to train on: give config's sources at least one with a weight above 0.")

    def example(number: int) -> Example | None:
        source, sample = draw(sources, seed, number)
        return bad.guarded(
            lambda s: checked_size(encode(encoder, s, source.reasoning, True, source.seen), rows), sample
        )

    def emit(packed: list[list[Example]]) -> Batch:
        return layout.pack(packed, rows, encoder.image)

    numbers = grain.MapDataset.range(shard[0], STREAM, shard[1])
    examples = numbers.map(example).to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=64))
    batches = PackedBatches(examples, count, rows, emit)
    return grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=4).__iter__()


class PromptBatch(NamedTuple):
    """A batch of prompts and the records they came from (fillers repeat a record and have index -1 in `prompts`)."""

    prompts: Prompts
    samples: tuple[Sample, ...]
    reference: Any = None  # what the rewards compare with, where asked for


def prompt_batches(
    samples: Sequence[Sample],
    encoder: Encoder,
    count: int,
    rows: RowsConfig,
    seed: int,
    bad: BadRecords,
    reference: Callable[[Sequence[Sample]], RewardTargets],
    shard: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator:
    """Endless batches of `count` prompts with their references, every record once an epoch, shuffled anew each."""
    numbered = grain.MapDataset.source(list(enumerate(samples))).seed(seed).shuffle().repeat()
    pairs = numbered[shard[0] :: shard[1]].map(
        lambda pair: bad.guarded(lambda s: (pair[0], s, checked_size(encode(encoder, s, True, False), rows)), pair[1])
    )
    stream = pairs.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=64))

    def together(items) -> PromptBatch:
        asked = _asked(items, encoder, rows, count)
        return asked._replace(reference=reference(asked.samples))

    batches = stream.batch(count, drop_remainder=True, batch_fn=together)
    return grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=4).__iter__()


def prompts_once(
    samples: Sequence[Sample],
    encoder: Encoder,
    count: int,
    rows: RowsConfig,
    bad: BadRecords,
    reasoning: bool = True,
    own: Sequence[int] | None = None,
) -> Iterator[PromptBatch]:
    """Every record once, in order, in batches of `count` that are filled up with index -1.

    With `own` only these rows of each batch are made, and made even where no record is left for them: the processes
    that make the others wait for it.
    """
    for start in range(0, len(samples), count):
        chunk = []
        for number in (start + row for row in (range(count) if own is None else own)):
            if number < len(samples):
                make = lambda s: checked_size(encode(encoder, s, reasoning, False), rows)  # noqa: E731
                example = bad.guarded(make, samples[number])
                if example is not None:
                    chunk.append((number, samples[number], example))
        if chunk or own is not None:
            yield _asked(chunk or [_blank(encoder, samples[start])], encoder, rows, count if own is None else len(own))


def _blank(encoder: Encoder, sample: Sample) -> tuple[int, Sample, Example]:
    """A row that stands for no record: a prompt without films."""
    return -1, sample, encode(encoder, replace(sample, images=(), question=""), True, False)


def _asked(items: Sequence[tuple[int, Sample, Example]], encoder: Encoder, rows: RowsConfig, count: int) -> PromptBatch:
    items = list(items)
    filled = items + [(-1, *items[-1][1:])] * (count - len(items))
    numbers, samples, examples = zip(*filled, strict=True)
    return PromptBatch(layout.prompts(examples, rows, numbers, encoder.image), samples)
