"""Format and outcome, in jit: whether the completion is well formed, and whether its answer is right.

The answer is read from the words of the answer block, never by substring. Closed tasks: letters alone ("A", "A, C",
"A and C") or letters that all have a bracket ("A) Yes"); several with "or" or a slash among them are none. Open task:
label names between commas. Format requires an answer that can be read in one of these ways, so wherever it is 1 every
careful reader finds the same answer.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt

from chestx_jax.findings import RewardTargets
from chestx_jax.findings.jit_arrays import JAX
from chestx_jax.findings.rules.matches import Matches
from chestx_jax.findings.rules.nearest import before, up_to_here
from chestx_jax.findings.words import Words
from chestx_jax.labels import LABELS, TASKS
from chestx_jax.lexicon import alphabet as a
from chestx_jax.lexicon import tags
from chestx_jax.lexicon import token_tables as t
from chestx_jax.lexicon.token_tables import Tables
from chestx_jax.types import Completion

_ENTRY_BREAKS = a.COMMA | a.SEMICOLON | a.NEWLINE


@struct.dataclass
class Answer:
    """The answer blocks of B completions, read as letters and as labels."""

    closed: Bool[Array, " B"]  # there is one answer block and it is closed
    well_formed: Bool[Array, " B"]  # think and answer blocks in order, nothing outside, legible bytes
    letters: UInt[Array, " B"]  # bit set of option letters; 0: not readable as letters
    labels: Bool[Array, "B 13"]
    others: Float[Array, " B"]  # number of words that belong to no label
    legible_labels: Bool[Array, " B"]  # the block is label names between commas and nothing else


def read_answer(tables: Tables, words: Words, matches: Matches) -> Answer:
    """The answer blocks of B completions, from their words and phrase matches [T, B]."""
    steps = words.word.shape[0]
    step = jnp.arange(steps)[:, None]
    inside = words.word & (step < steps - 1) & ((words.zone == tags.ANSWER) | (words.zone == tags.ANSWER_ALONE))
    kind = tables.word_class[words.number]
    letter = jnp.where(inside & words.upper, kind >> t.LETTER_SHIFT, 0)
    glue = inside & ~words.upper & ((kind & t.GLUE) != 0)
    count = inside.sum(0)
    first = jnp.argmax(inside, 0)
    final = steps - 1 - jnp.argmax(inside[::-1], 0)
    letters_at_ends = (jnp.take_along_axis(letter, jnp.stack([first, final]), 0) > 0).all(0)
    letters_alone = (~inside | (letter > 0) | glue).all(0) & letters_at_ends & (count > 0)
    last_word = up_to_here(JAX, cue=jnp.where(words.word, 1 + inside.astype(jnp.int32), 0)).cue
    bracketed = jnp.where((before(JAX, last_word).value == 2) & words.word, words.option_letter, 0)
    all_bracketed = (letter > 0).sum(0) == (bracketed > 0).sum(0)
    letters = jnp.where(letters_alone | all_bracketed, _letter_bits(jnp.where(letters_alone, letter, bracketed)), 0)
    slash = (step != first[None]) & ((words.gap & a.SLASH) != 0)
    hedged = (inside & (((kind & t.HEDGE) != 0) | slash)).any(0)
    letters = jnp.where(hedged & ((letters & (letters - 1)) != 0), 0, letters)

    label = matches.concept
    is_label = inside & (label > 0) & (label <= len(LABELS)) & ~words.passed
    named = is_label & (~matches.inverse)
    labels = (named[:, None] & (label[:, None] == jnp.arange(1, len(LABELS) + 1)[None, :, None])).any(0).T
    covered = jnp.where(named, matches.depth, 0).sum(0)
    begins = inside & ((step == first[None]) | ((words.gap & _ENTRY_BREAKS) != 0))
    entries = begins.sum(0)
    # The first word's gap begins in the think block: only its signs behind the answer tag count.
    signs = jnp.where(step == first[None], words.led, (words.gap & a.SIGNS) != 0)
    exact = (~inside | ((kind & t.EXACT) != 0)).all(0) & ~(inside & signs).any(0)
    proper = (~named | (matches.label)).all(0)
    legible = exact & proper & (covered == count) & (entries == named.sum(0)) & (count > 0)
    zone, clean = tables.tag_zone[words.end], tables.tag_clean[words.end]
    return Answer(
        closed=(zone == tags.AFTER) | (zone == tags.AFTER_ALONE),
        well_formed=(zone == tags.AFTER) & clean,
        letters=letters,
        labels=labels,
        others=jnp.maximum(count - covered, 0).astype(jnp.float32),
        legible_labels=legible & _closing_gap_is_plain(words),
    )


def format_term(answer: Answer, targets: RewardTargets, completion: Completion, partial: bool) -> Float[Array, " B"]:
    """1 for one think and one answer block in order, nothing outside, and a readable answer; else 0.

    `partial`: 0.5 for such blocks with an answer that cannot be read.
    """
    is_open = _is_open(targets, completion)
    readable = jnp.where(is_open, answer.legible_labels, answer.letters > 0)
    half = 0.5 if partial else 0.0
    return jnp.where(answer.well_formed, jnp.where(readable, 1.0, half), 0.0).astype(jnp.float32)


def outcome_term(answer: Answer, targets: RewardTargets, completion: Completion, exact: bool) -> Float[Array, " B"]:
    """Closed tasks: 1 for the gold letter set. Open task: F1 of the label sets, or 1 for the gold set if `exact`."""
    gold = jnp.asarray(targets.labels)[completion.prompt]
    right = (answer.letters == jnp.asarray(targets.letters)[completion.prompt]) & (answer.letters > 0)
    hits = (answer.labels & gold).sum(1).astype(jnp.float32)
    size = (answer.labels.sum(1) + gold.sum(1)).astype(jnp.float32) + answer.others
    f1 = 2.0 * hits / jnp.maximum(size, 1.0)
    same = (answer.labels == gold).all(1) & (answer.others == 0) & gold.any(1)
    by_labels = jnp.where(same, 1.0, 0.0) if exact else f1
    value = jnp.where(_is_open(targets, completion), by_labels, right.astype(jnp.float32))
    return jnp.where(answer.closed, value, 0.0).astype(jnp.float32)


def _is_open(targets: RewardTargets, completion: Completion) -> Bool[Array, " B"]:
    return jnp.asarray(targets.task)[completion.prompt] == TASKS.index("anomaly")


def _letter_bits(letter: Int[Array, "T B"]) -> UInt[Array, " B"]:
    """Bit set of the letters (numbers from 1; 0: none) of each text."""
    bits = jnp.where(letter > 0, jnp.uint32(1) << jnp.maximum(letter - 1, 0).astype(jnp.uint32), jnp.uint32(0))
    return jax.lax.reduce(bits, jnp.uint32(0), jax.lax.bitwise_or, (0,))


def _closing_gap_is_plain(words: Words) -> Bool[Array, " B"]:
    """Whether nothing but white space, commas and the tag follows the last word of the answer."""
    after = words.word & ((words.zone == tags.AFTER) | (words.zone == tags.AFTER_ALONE))
    return (~after | ((words.gap & a.SIGNS) == 0)).all(0)
