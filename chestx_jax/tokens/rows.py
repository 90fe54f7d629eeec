"""Samples to rows: encode one sample, pack several into the rows of a batch, lay out prompts for sampling."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from chestx_jax.buckets import LengthsConfig, slot_buckets, smallest_bucket, token_buckets
from chestx_jax.config import bounded
from chestx_jax.errors import UserError
from chestx_jax.tokens import chat
from chestx_jax.tokens.patches import ImageSpec, patch_positions
from chestx_jax.tokens.positions import mrope
from chestx_jax.tokens.tokenizer import SpecialIds
from chestx_jax.types import Batch, Images, Prompts, Tokens

PatchesAndGrid = tuple[UInt8[np.ndarray, "P Z"], tuple[int, int]]
PatchesAndPositions = tuple[UInt8[np.ndarray, "P Z"], Int32[np.ndarray, "P 2"]]


@dataclass(frozen=True)
class RowsConfig:
    """The static shape of a batch's rows: tokens, image slots, and patches of each slot."""

    length: int = bounded(2048, min=1)
    image_slots: int = bounded(2, min=1)
    patches: int = bounded(1024, min=1)


@dataclass(frozen=True)
class Example:
    """One encoded sample, before padding and packing."""

    ids: Int32[np.ndarray, " L"]
    positions: Int32[np.ndarray, "L 3"]
    visual: Int32[np.ndarray, " L"]  # number of the merged visual token among the sample's own, else -1
    weights: Float32[np.ndarray, " L"]  # 1 on the tokens to learn, 0 on the prompt
    images: tuple[PatchesAndPositions, ...]


def encode(
    tokenizer: Any,
    special: SpecialIds,
    question: str,
    images: Sequence[PatchesAndGrid],
    reasoning: bool,
    target: str | None,
    merge_size: int = 2,
) -> Example:
    """One sample as an Example; `images` come from `tokens.patches.patches`, `target` is None for a prompt alone."""
    grids = [grid for _, grid in images]
    prompt = chat.prompt_ids(tokenizer, special, question, [r * c // merge_size**2 for r, c in grids], reasoning)
    answer = [] if target is None else chat.target_ids(tokenizer, special, target, reasoning)
    ids = np.array(prompt + answer, np.int32)
    pads = ids == special.image_pad
    return Example(
        ids=ids,
        positions=mrope(ids, grids, special.image_pad, merge_size),
        visual=np.where(pads, np.cumsum(pads, dtype=np.int32) - 1, -1).astype(np.int32),
        weights=np.array([0.0] * len(prompt) + [1.0] * len(answer), np.float32),
        images=tuple((values, patch_positions(grid, merge_size)) for values, grid in images),
    )


def encode_visual_targets(
    tokenizer: Any,
    special: SpecialIds,
    images: Sequence[PatchesAndGrid],
    words: Sequence[str],
    merge_size: int = 2,
    each: bool = True,
) -> Example:
    """One sample whose targets stand at the films' own visual tokens: a word at `each`, or at the last of them.

    A visual token's embedding comes from the film, so the id in its place is free to be a target: the id after a visual
    token is the last id of its word, and it is predicted from that token alone and what precedes it. Nothing follows
    the films. Raises UserError where there is no word for each visual token, or more words than tokens.
    """
    plain = encode(tokenizer, special, "", images, False, None, merge_size)
    places = np.flatnonzero(plain.visual >= 0)
    if not 0 < len(words) <= len(places) or (each and len(words) < len(places)):
        how = "one word for each" if each else "at most one for each"
        raise UserError(f"{len(words)} words for {len(places)} visual tokens: write {how}.")
    end = places[-1] + 2
    ids, weights = plain.ids[:end].copy(), np.zeros(end, np.float32)
    targets = places[-len(words) :] + 1
    ids[targets] = [chat.encode_text(tokenizer, word)[-1] for word in words]
    weights[targets] = 1.0
    return Example(ids, plain.positions[:end], plain.visual[:end], weights, plain.images)


def checked_size(example: Example, rows: RowsConfig) -> Example:
    """The example, or a UserError where not even an empty row holds it."""
    patches = max((len(values) for values, _ in example.images), default=0)
    if len(example.ids) > rows.length or len(example.images) > rows.image_slots or patches > rows.patches:
        raise UserError(
            f"It has {len(example.ids)} tokens, {len(example.images)} images and up to {patches} patches each; a row "
            f"holds {rows.length}, {rows.image_slots} and {rows.patches}: raise config's rows or leave the record out."
        )
    return example


def row_buckets(rows: RowsConfig, lengths: LengthsConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens and image slots that rows are padded to. Raises UserError for one above the limits, `rows`."""
    return token_buckets(rows.length, lengths.rows), slot_buckets(rows.image_slots, lengths.image_slots)


def bucket_of(examples: Sequence[Sequence[Example]], rows: RowsConfig, lengths: LengthsConfig) -> RowsConfig:
    """The smallest bucket that holds a batch whose row b is `examples[b]`: its tokens and image slots, the patches of
    `rows`. Raises ValueError where not even `rows` holds it."""
    tokens = max(sum(len(example.ids) for example in row) for row in examples)
    slots = max(sum(len(example.images) for example in row) for row in examples)
    return bucket_that_holds(tokens, slots, rows, lengths)


def bucket_that_holds(tokens: int, image_slots: int, rows: RowsConfig, lengths: LengthsConfig) -> RowsConfig:
    """The smallest bucket with room for so many tokens and image slots. Raises ValueError as `bucket_of` does."""
    length, image_slots = map(smallest_bucket, (tokens, image_slots), row_buckets(rows, lengths))
    return replace(rows, length=length, image_slots=image_slots)


def pack(examples: Sequence[Sequence[Example]], rows: RowsConfig, spec: ImageSpec) -> Batch:
    """A batch whose row b holds `examples[b]` one after the other (segments 1, 2, …), right-padded to the shape `rows`.

    Positions restart with each sample. Raises UserError where a row's tokens, images or patches do not fit.
    """
    batch = _empty(len(examples), rows, spec)
    for b, row in enumerate(examples):
        token = slot = 0
        for segment, example in enumerate(row, start=1):
            end = token + len(example.ids)
            _check_fit(b, end, slot + len(example.images), example, rows)
            here = (b, slice(token, end))
            batch.tokens.ids[here] = example.ids
            batch.tokens.segments[here] = segment
            batch.tokens.positions[here] = example.positions
            batch.tokens.visual[here] = _place_visual(example, slot, rows.patches, spec.merge_size)
            batch.weights[here] = example.weights
            for i, (values, positions) in enumerate(example.images, start=slot):
                batch.images.patches[b, i, : len(values)] = values
                batch.images.positions[b, i, : len(values)] = positions
                batch.images.valid[b, i, : len(values)] = True
            token, slot = end, slot + len(example.images)
    return batch


def prompts(examples: Sequence[Example], rows: RowsConfig, index: Sequence[int], spec: ImageSpec) -> Prompts:
    """Prompts of a rollout, one example a row, right-padded; `index[n]` is its position in the data.

    A batch short of records is filled by repeating an example with index -1: its row is computed and ignored.
    """
    batch = pack([[example] for example in examples], rows, spec)
    lengths = np.array([len(example.ids) for example in examples], np.int32)
    return Prompts(tokens=batch.tokens, images=batch.images, length=lengths, index=np.array(index, np.int32))


def _empty(count: int, rows: RowsConfig, spec: ImageSpec) -> Batch:
    text, slots = (count, rows.length), (count, rows.image_slots, rows.patches)
    tokens = Tokens(
        ids=np.zeros(text, np.int32),
        segments=np.zeros(text, np.int32),
        positions=np.zeros((*text, 3), np.int32),
        visual=np.full(text, -1, np.int32),
    )
    images = Images(
        patches=np.zeros((*slots, spec.patch_pixels), np.uint8),
        positions=np.zeros((*slots, 2), np.int32),
        valid=np.zeros(slots, bool),
        mean=spec.mean,
        std=spec.std,
    )
    return Batch(tokens=tokens, images=images, weights=np.zeros(text, np.float32))


def _place_visual(example: Example, slot: int, patches: int, merge_size: int) -> np.ndarray:
    """The example's visual indices in a row whose image slots hold `patches` patches each, its first being `slot`."""
    capacity = patches // merge_size**2
    counts = [len(values) // merge_size**2 for values, _ in example.images]
    places = [np.arange(count) + (slot + i) * capacity for i, count in enumerate(counts)]
    table = np.concatenate([*places, [-1]]).astype(np.int32)  # the last entry answers the index -1 of text
    return table[example.visual]


def _check_fit(row: int, end: int, slots: int, example: Example, rows: RowsConfig) -> None:
    if end > rows.length:
        raise UserError(f"Row {row} needs {end} tokens and the bucket holds {rows.length}: raise the sequence length.")
    if slots > rows.image_slots:
        raise UserError(
            f"Row {row} needs {slots} image slots and the bucket holds {rows.image_slots}: raise the slots."
        )
    largest = max((len(values) for values, _ in example.images), default=0)
    if largest > rows.patches:
        raise UserError(
            f"Row {row} has an image of {largest} patches and the bucket holds {rows.patches}: lower max_pixels."
        )
