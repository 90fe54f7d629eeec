"""The input pipelines: packed batches for SFT, prompts with their reward targets for GRPO.

Each is a Grain dataset whose iterator can be checkpointed; films are decoded in threads while the device works.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grain
import numpy as np

from chestx_jax.data.mixture import Source, draw
from chestx_jax.data.packing import PackedBatches
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.findings import RewardTargets
from chestx_jax.tokens import chat
from chestx_jax.tokens import rows as layout
from chestx_jax.tokens.films import load_image
from chestx_jax.tokens.patches import ImageSpec, patches
from chestx_jax.tokens.rows import Example, RowsConfig, checked_size
from chestx_jax.tokens.tokenizer import SpecialIds
from chestx_jax.types import Batch, Prompts

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
    log: Callable[[str], None] = LOG.warning
    read: int = 0
    ids: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def attempt(self, encode: Callable[[Sample], Any], sample: Sample) -> Any:
        """`encode(sample)`, or None for a bad record, which is logged with its id, file and number."""
        try:
            encoded, problem = encode(sample), None
        except UserError as error:
            encoded, problem = None, error
        with self.lock:
            self.read += 1
            if problem is not None:
                self.ids.append(sample.id)
                self.log(f"record {sample.name} skipped ({len(self.ids)} of {self.read} so far): {problem}")
            if len(self.ids) > max(self.share * self.read, self.share * 100):
                raise UserError(
                    f"{len(self.ids)} of {self.read} records are bad, more than the allowed share of {self.share:g}; "
                    f"the last is {self.ids[-1]}: fix the data or raise max_bad."
                )
        return encoded


def encode_sample(encoder: Encoder, sample: Sample, reasoning: bool, seen: bool = False) -> Example:
    """A sample with its answer as tokens, positions and patches; with `seen` (see SourceConfig) the targets are at the
    films' own tokens.

    Raises UserError for a film that cannot be read.
    """
    films = load_films(encoder, sample.images)
    tokenizer, special, merge_size = encoder.tokenizer, encoder.special, encoder.image.merge_size
    if seen:
        names = [f" {name}" for name in sample.answer.split()]
        return layout.encode_visual_targets(tokenizer, special, films, names, merge_size)
    target = chat.target_text(sample.steps, sample.answer, reasoning)
    return layout.encode(tokenizer, special, sample.question, films, reasoning, target, merge_size)


def encode_prompt(encoder: Encoder, question: str, images: Sequence[str], reasoning: bool = True) -> Example:
    """A question about films as tokens, positions and patches. Raises UserError for a film that cannot be read."""
    films = load_films(encoder, images)
    return layout.encode(encoder.tokenizer, encoder.special, question, films, reasoning, None, encoder.image.merge_size)


def load_films(encoder: Encoder, paths: Sequence[str]) -> list[layout.PatchesAndGrid]:
    """Patches and grid of each film, zeros for a blind encoder. Raises UserError for a film that cannot be read."""
    films = [_load_patches(path, encoder.image) for path in paths]
    return [(np.zeros_like(values), grid) for values, grid in films] if encoder.blind else films


def _load_patches(path: str, spec: ImageSpec) -> layout.PatchesAndGrid:
    image = load_image(path)
    try:
        return patches(image, spec)
    except UserError as error:  # of a shape that cannot be resized: said without the file's name
        raise UserError(f"{path}: {error}") from error


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
            lambda s: checked_size(encode_sample(encoder, s, source.reasoning, source.seen), rows), sample
        )

    def emit(packed: list[list[Example]]) -> Batch:
        return layout.pack(packed, rows, encoder.image)

    numbers = grain.MapDataset.range(shard[0], STREAM_LENGTH, shard[1])
    examples = numbers.map(example).to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=64))
    batches = PackedBatches(examples, count, rows, emit)
    return grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=4).__iter__()


class PromptBatch(NamedTuple):
    """A batch of prompts, the records they came from and what the rewards compare completions with."""

    prompts: Prompts
    samples: tuple[Sample, ...]
    targets: RewardTargets


def prompt_batches(
    samples: Sequence[Sample],
    encoder: Encoder,
    count: int,
    rows: RowsConfig,
    seed: int,
    bad: BadRecords,
    targets: Callable[[Sequence[Sample]], RewardTargets],
    shard: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator:
    """Endless batches of `count` prompts with their reward `targets`, every record once an
    epoch, shuffled anew each."""

    def encode(numbered: tuple[int, Sample]) -> tuple[int, Sample, Example] | None:
        number, sample = numbered
        example = bad.attempt(lambda s: checked_size(encode_prompt(encoder, s.question, s.images), rows), sample)
        return None if example is None else (number, sample, example)

    def batch(encoded: Sequence[tuple[int, Sample, Example]]) -> PromptBatch:
        numbers, batch_samples, examples = zip(*encoded, strict=True)
        prompts = layout.prompts(examples, rows, numbers, encoder.image)
        return PromptBatch(prompts, batch_samples, targets(batch_samples))

    numbered = grain.MapDataset.source(list(enumerate(samples))).seed(seed).shuffle().repeat()
    encoded = numbered[shard[0] :: shard[1]].map(encode)
    stream = encoded.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=64))
    batches = stream.batch(count, drop_remainder=True, batch_fn=batch)
    return grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=4).__iter__()
