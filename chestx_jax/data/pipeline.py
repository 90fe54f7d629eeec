"""The input pipelines: packed batches for SFT, prompts with their reward targets for GRPO.

Each is a Grain dataset whose iterator can be checkpointed; films are decoded in threads while the device works. A batch
depends on the seed and the place in the stream alone: each of several processes walks the whole stream and lays out its
own rows of every batch, so that one place is that of all and any number of processes goes on from it. The price is that
each decodes every film.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from chestx_jax.buckets import LengthsConfig
from chestx_jax.data.augment import AugmentConfig, augment
from chestx_jax.data.bad_records import Attempt, BadRecords, GoodRecords, attempt
from chestx_jax.data.mixture import Source, Targets, draw
from chestx_jax.data.packing import PackedBatches
from chestx_jax.data.reader import Problem
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.findings import RewardTargets
from chestx_jax.tokens import chat
from chestx_jax.tokens import rows as layout
from chestx_jax.tokens.film_cache import FilmCache
from chestx_jax.tokens.films import load_film
from chestx_jax.tokens.patches import ImageSpec, patches, without_content
from chestx_jax.tokens.reading import thread_count
from chestx_jax.tokens.rows import Example, RowsConfig, checked_size
from chestx_jax.tokens.tokenizer import SpecialIds
from chestx_jax.types import Batch, Prompts

STREAM_LENGTH = 1 << 40  # of the training stream: endless


class Encoder(NamedTuple):
    """What turns a sample into tokens and patches."""

    tokenizer: Any
    special: SpecialIds
    image: ImageSpec
    blind: bool = False  # every film replaced by one of its mean tone: the text-only baseline
    augment: AugmentConfig = AugmentConfig()  # of films that are encoded with a generator of random numbers
    cache: FilmCache | None = None  # of resized films


def encode_sample(
    encoder: Encoder,
    sample: Sample,
    reasoning: bool,
    targets: Targets = "text",
    random: np.random.Generator | None = None,
) -> Example:
    """A sample with its answer as tokens, positions and patches, with its `targets` where SourceConfig has them; films
    are not augmented where words stand for their regions.

    Raises UserError for a film that cannot be read, and for a reasoning sample without reasoning.
    """
    if reasoning and targets == "text" and not sample.steps:
        raise UserError(
            "It has no reasoning steps and its source is one of reasoning: write its reason_steps, or set the source's "
            "reasoning to False"
        )
    films = load_films(encoder, sample.images, None if targets == "regions" else random)
    tokenizer, special, merge_size = encoder.tokenizer, encoder.special, encoder.image.merge_size
    if targets != "text":
        words = [f" {word}" for word in sample.answer.split()]
        return layout.encode_visual_targets(tokenizer, special, films, words, merge_size, targets == "regions")
    target = chat.target_text(sample.steps, sample.answer, reasoning)
    return layout.encode(tokenizer, special, sample.question, films, reasoning, target, merge_size)


def encode_prompt(
    encoder: Encoder,
    question: str,
    images: Sequence[str],
    reasoning: bool = True,
    random: np.random.Generator | None = None,
) -> Example:
    """A question about films as tokens, positions and patches. Raises UserError for a film that cannot be read."""
    films = load_films(encoder, images, random)
    return layout.encode(encoder.tokenizer, encoder.special, question, films, reasoning, None, encoder.image.merge_size)


def load_films(
    encoder: Encoder, paths: Sequence[str], random: np.random.Generator | None = None
) -> list[layout.PatchesAndGrid]:
    """Patches and grid of each film, of one tone for a blind encoder; augmented by draws from `random`, in the order of
    the films. Raises UserError for a film that cannot be read."""
    films = [_load_patches(path, encoder, random) for path in paths]
    return [(without_content(values, encoder.image), grid) for values, grid in films] if encoder.blind else films


def _load_patches(path: str, encoder: Encoder, random: np.random.Generator | None) -> layout.PatchesAndGrid:
    film = encoder.cache.load(path, encoder.image) if encoder.cache else load_film(path, encoder.image)
    return patches(film if random is None else augment(film, encoder.augment, random), encoder.image)


def supervised_batches(
    sources: Sequence[Source],
    encoder: Encoder,
    count: int,
    rows: RowsConfig,
    lengths: LengthsConfig,
    seed: int,
    max_bad: float,
    own_rows: Sequence[int] | None = None,
    threads: int = 0,
) -> grain.DatasetIterator:
    """Endless packed batches of `count` rows, of which `own_rows` (None: all) are laid out, in the smallest bucket that
    holds the whole batch. `threads` decode films (0: one a core).

    Raises UserError where no source has a weight, and, while iterating, where more than the share `max_bad` of a
    source's records are bad (a record that no row can hold is one).
    """
    if not any(source.weight > 0 for source in sources):
        raise UserError("There is nothing to train on: give config's sources at least one with a weight above 0.")

    def example(number: int) -> Attempt:
        source_number, record_number = draw(sources, seed, number)
        source = sources[source_number]
        record = source.records[record_number]
        if isinstance(record, Problem):
            return Attempt(source_number, record_number, record.id, None, str(record))
        random = _augmentation(seed, number)
        encode = lambda: encode_sample(encoder, record, source.reasoning, source.targets, random)  # noqa: E731
        return attempt(lambda: checked_size(encode(), rows), source_number, record_number, record.name)

    def emit(packed: list[list[Example]]) -> Batch:
        own = packed if own_rows is None else [packed[row] for row in own_rows]
        return layout.pack(own, layout.bucket_of(packed, rows, lengths), encoder.image)

    attempts = grain.MapDataset.range(STREAM_LENGTH).map(example).to_iter_dataset(_read_options(threads))
    examples = GoodRecords(attempts, [bad_records(source, max_bad) for source in sources])
    batches = PackedBatches(examples, count, rows, emit)
    return grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=4).__iter__()


def _augmentation(seed: int, place: int) -> np.random.Generator:
    """The draws for a place in the stream: its own in each epoch, and the same for all processes and after a resume."""
    return np.random.default_rng((seed, place, 1))  # another stream than that of `mixture.draw`


def _read_options(threads: int) -> grain.ReadOptions:
    """How films are read with so many threads (0: one a core): some samples ahead of their use."""
    threads = thread_count(threads)
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(64, 2 * threads))


def bad_records(source: Source, max_bad: float) -> BadRecords:
    """The counter of a source's bad records, which begins with those that its file was found to have."""
    known = {number for number, record in enumerate(source.records) if isinstance(record, Problem)}
    return BadRecords(max_bad, len(source.records), numbers=known)


class PromptBatch(NamedTuple):
    """A batch of prompts, the records they came from and what the rewards compare completions with."""

    prompts: Prompts
    samples: tuple[Sample, ...]
    targets: RewardTargets


def prompt_batches(
    source: Source,
    encoder: Encoder,
    count: int,
    rows: RowsConfig,
    lengths: LengthsConfig,
    seed: int,
    max_bad: float,
    targets: Callable[[Sequence[Sample]], RewardTargets],
    own_rows: Sequence[int] | None = None,
    threads: int = 0,
) -> grain.DatasetIterator:
    """Endless batches of `count` prompts with their reward `targets`, of which `own_rows` (None: all) are laid out, in
    the smallest bucket that holds the whole batch; every record once an epoch, shuffled anew each. A prompt's `index`
    is its position in this stream: a record that comes twice is two prompts. Raises UserError as `supervised_batches`
    does, while iterating."""

    def encode(place: int, number: int) -> Attempt:
        record = source.records[number]
        if isinstance(record, Problem):
            return Attempt(0, number, record.id, None, str(record))
        random = _augmentation(seed, place)
        prompt = lambda: encode_prompt(encoder, record.question, record.images, random=random)  # noqa: E731
        return attempt(lambda: (place, record, checked_size(prompt(), rows)), 0, number, record.name)

    def batch(encoded: Sequence[tuple[int, Sample, Example]]) -> PromptBatch:
        own = encoded if own_rows is None else [encoded[row] for row in own_rows]
        positions, batch_samples, examples = zip(*own, strict=True)
        bucket = layout.bucket_of([[example] for _, _, example in encoded], rows, lengths)
        prompts = layout.prompts(examples, bucket, positions, encoder.image)
        return PromptBatch(prompts, batch_samples, targets(batch_samples))

    numbers = grain.MapDataset.range(len(source.records)).seed(seed).shuffle().repeat()
    attempts = numbers.map_with_index(encode).to_iter_dataset(_read_options(threads))
    prompts = GoodRecords(attempts, [bad_records(source, max_bad)])
    batches = prompts.batch(count, drop_remainder=True, batch_fn=batch)
    return grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=4).__iter__()
