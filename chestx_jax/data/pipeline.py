"""The input pipelines: packed batches for SFT, prompts with their reward targets for GRPO, prompts for evaluation.

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
from chestx_jax.data.reward_targets import reward_targets
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.lexicon import Lexicon
from chestx_jax.tokens import chat
from chestx_jax.tokens import rows as layout
from chestx_jax.tokens.films import load_image
from chestx_jax.tokens.patches import ImageSpec, patches
from chestx_jax.tokens.rows import Example, RowsConfig, checked_size
from chestx_jax.tokens.tokenizer import SpecialIds
from chestx_jax.types import Batch, Prompts, RewardTargets

STREAM_LENGTH = 1 << 40  # of the training stream: endless
LOG = logging.getLogger(__name__)


class Encoder(NamedTuple):
    """What turns a sample into tokens and patches."""

    tokenizer: Any
    special: SpecialIds
    image: ImageSpec
    blind: bool = False  # every film replaced by zeros: the text-only baseline


@dataclass
class BadRecords:
    """Counts records that had to be skipped, and stops the run when they are more than `share` of those read."""

    share: float
    read: int = 0
    ids: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def attempt(self, encode: Callable[[Sample], Any], sample: Sample) -> Any:
        """`encode(sample)`, or None for a bad record, which is logged with its id."""
        try:
            encoded, problem = encode(sample), None
        except UserError as error:
            encoded, problem = None, error
        with self.lock:
            self.read += 1
            if problem is not None:
                self.ids.append(sample.id)
                LOG.warning("record %s skipped (%d of %d so far): %s", sample.id, len(self.ids), self.read, problem)
            if len(self.ids) > max(self.share * self.read, self.share * 100):
                raise UserError(
                    f"{len(self.ids)} of {self.read} records are bad, more than the allowed share of {self.share:g}; "
                    f"the last is {self.ids[-1]}: fix the data or raise max_bad."
                )
        return encoded


def encode(encoder: Encoder, sample: Sample, reasoning: bool, with_target: bool, seen: bool = False) -> Example:
    """A sample as tokens, positions and patches, its targets at the films' own tokens where `seen` (see SourceConfig).

    Raises UserError for a film that cannot be read.
    """
    films = [patches(load_image(path), encoder.image) for path in sample.images]
    if encoder.blind:
        films = [(np.zeros_like(values), grid) for values, grid in films]
    tokenizer, special, merge_size = encoder.tokenizer, encoder.special, encoder.image.merge_size
    if seen:
        names = [f" {name}" for name in sample.answer.split()]
        return layout.encode_visual_targets(tokenizer, special, films, names, merge_size)
    target = chat.target_text(sample.steps, sample.answer, reasoning) if with_target else None
    return layout.encode(tokenizer, special, sample.question, films, reasoning, target, merge_size)


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
        return bad.attempt(
            lambda s: checked_size(encode(encoder, s, source.reasoning, True, source.seen), rows), sample
        )

    def emit(packed: list[list[Example]]) -> Batch:
        return layout.pack(packed, rows, encoder.image)

    numbers = grain.MapDataset.range(shard[0], STREAM_LENGTH, shard[1])
    examples = numbers.map(example).to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=64))
    batches = PackedBatches(examples, count, rows, emit)
    return grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=4).__iter__()


class PromptBatch(NamedTuple):
    """A batch of prompts and the records they came from (fillers repeat a record and have index -1 in `prompts`)."""

    prompts: Prompts
    samples: tuple[Sample, ...]
    targets: RewardTargets | None = None  # what the rewards compare completions with


def prompt_batches(
    samples: Sequence[Sample],
    encoder: Encoder,
    count: int,
    rows: RowsConfig,
    seed: int,
    bad: BadRecords,
    lexicon: Lexicon,
    slots: int,
    shard: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator:
    """Endless batches of `count` prompts with their reward targets (findings in `slots` slots), every record once an
    epoch, shuffled anew each."""

    def batch(prompts: Sequence[_NumberedPrompt]) -> PromptBatch:
        prompt_batch = _prompt_batch(prompts, encoder, rows, count)
        return prompt_batch._replace(targets=reward_targets(lexicon, prompt_batch.samples, slots))

    numbered = grain.MapDataset.source(list(enumerate(samples))).seed(seed).shuffle().repeat()
    encoded = numbered[shard[0] :: shard[1]].map(lambda pair: _prompt(pair[0], pair[1], encoder, rows, bad))
    stream = encoded.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=64))
    batches = stream.batch(count, drop_remainder=True, batch_fn=batch)
    return grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=4).__iter__()


def prompts_once(
    samples: Sequence[Sample],
    encoder: Encoder,
    count: int,
    rows: RowsConfig,
    bad: BadRecords,
    local_rows: Sequence[int] | None = None,
) -> Iterator[PromptBatch]:
    """Every record once, in order, in batches of `count` that are filled up with index -1.

    With `local_rows` only these rows of each batch are prepared, even where no record is left for them: the processes
    that prepare the others wait for it.
    """
    prepared = range(count) if local_rows is None else local_rows
    for start in range(0, len(samples), count):
        numbers = [start + row for row in prepared if start + row < len(samples)]
        prompts = [_prompt(number, samples[number], encoder, rows, bad) for number in numbers]
        readable = [prompt for prompt in prompts if prompt is not None]
        if readable or local_rows is not None:
            yield _prompt_batch(readable or [_blank(encoder, samples[start])], encoder, rows, len(prepared))


_NumberedPrompt = tuple[int, Sample, Example]  # the record's number, -1 for none


def _prompt(number: int, sample: Sample, encoder: Encoder, rows: RowsConfig, bad: BadRecords) -> _NumberedPrompt | None:
    example = bad.attempt(lambda s: checked_size(encode(encoder, s, True, False), rows), sample)
    return None if example is None else (number, sample, example)


def _blank(encoder: Encoder, sample: Sample) -> _NumberedPrompt:
    """A row that stands for no record: a prompt without films."""
    return -1, sample, encode(encoder, replace(sample, images=(), question=""), True, False)


def _prompt_batch(prompts: Sequence[_NumberedPrompt], encoder: Encoder, rows: RowsConfig, count: int) -> PromptBatch:
    filled = [*prompts, *[(-1, *prompts[-1][1:])] * (count - len(prompts))]
    numbers, samples, examples = zip(*filled, strict=True)
    return PromptBatch(layout.prompts(examples, rows, numbers, encoder.image), samples)
