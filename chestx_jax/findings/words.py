"""Words: what reading bytes on the host (`text_words`) and reading tokens in jit (`token_words`) both give."""

from typing import NamedTuple

from jaxtyping import Bool, Int

from chestx_jax.findings.arrays import Array
from chestx_jax.lexicon import alphabet as a
from chestx_jax.lexicon import tags

PHRASE_BREAKS = a.COMMA | a.SEMICOLON | a.COLON | a.BRACKET  # separators that no phrase reaches over


class Words(NamedTuple):
    """The words of B texts in T steps, each at the step where it ends; `word` is False at the other steps.

    A closing word follows the last one of each text, so that the last gap is read too. Positions are offsets of bytes
    on the host and of tokens in jit. The fields after `last` are for the reading of answers: only tokens have them.
    """

    word: Bool[Array, "T B"]
    boundary: Bool[Array, "T B"]  # it begins a sentence
    closing: Bool[Array, "T B"]  # it is the closing word
    option: Bool[Array, "T B"]  # it is the first word of a listed option
    passed: Bool[Array, "T B"]  # it interrupts a phrase without breaking it, or is no lexeme of any phrase
    zone: Int[Array, "T B"]  # tags.BEFORE … of its first byte
    gap: Int[Array, "T B"]  # flags of the separators before it
    state: Int[Array, "T B"]  # phrase state whose record counts
    content: Int[Array, "T B"]  # number of lexemes so far that were not passed over
    first: Int[Array, "T B"]  # its first position
    last: Int[Array, "T B"]  # its last position, inclusive
    upper: Bool[Array, "T B"] = None  # it begins with a capital
    option_letter: Int[Array, "T B"] = None  # number of the capital before it with a bracket ("A)"); 0: none
    led: Bool[Array, "T B"] = None  # signs precede it in its answer block
    number: Int[Array, "T B"] = None  # word number of the tables
    end: Int[Array, " B"] = None  # state of the tag automaton after the text


def counted_steps(words: Words, think_only: bool) -> Bool[Array, "T B"]:
    """Steps in the part of each text whose findings count.

    `think_only` (training): the think block. Otherwise (judging) the same of a text with a closed think block, and of
    any other text all but its answer block.
    """
    zone, thinking = words.zone, words.zone == tags.THINK
    if think_only:
        return thinking
    closed = words.word & ((zone == tags.BETWEEN) | (zone == tags.ANSWER) | (zone == tags.AFTER))
    outside_answer = (zone != tags.ANSWER) & (zone != tags.ANSWER_ALONE)
    think_closed = closed.any(0)[None]
    return (think_closed & thinking) | (~think_closed & outside_answer)
