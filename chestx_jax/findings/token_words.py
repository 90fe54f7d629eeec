"""Sampled token ids as words: the three automata of `lexicon/token_tables.py` in one scan over tokens.

Bytes are scanned in `text_words`. Arrays are time-major, [T, B]: B texts, T scan steps (the parts of all tokens and
two closing steps).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from chestx_jax.findings.words import PHRASE_BREAKS, Words
from chestx_jax.lexicon import alphabet as a
from chestx_jax.lexicon import tags
from chestx_jax.lexicon import token_tables as t
from chestx_jax.lexicon.token_tables import Tables

_HALVED = 8  # tokens of a text that are read in halves at most; a vocabulary has few such tokens


class _Carry(NamedTuple):
    """The scan's state for B texts, int32[B] each."""

    trie: Array
    tag: Array
    phrase: Array
    content: Array
    gap: Array  # flags of the separators since the last word
    before: Array  # gap before the word being read
    lead: Array  # flags of the separators since the answer block was opened; 0 outside of one
    led: Array  # the signs among them where the word being read began
    first: Array
    last: Array
    zone: Array
    upper: Array
    previous: Array  # the word before: its class (SHORT, NUMBER), the bits below, its letter from bit 16
    previous_zone: Array


_BEGAN_SENTENCE, _ANY, _CAPITAL = 1 << 12, 1 << 13, 1 << 14  # bits of `previous`


def read_words(tables: Tables, ids_BxL: Int[Array, "B L"], length_B: Int[Array, " B"]) -> Words:
    """The words of the first `length` tokens of each row. Ids beyond the vocabulary read as empty tokens."""
    texts, width = ids_BxL.shape
    empty = tables.split.shape[0] - 1
    parts = tables.head.shape[1]
    ids = jnp.where(jnp.arange(width)[None] < length_B[:, None], jnp.clip(ids_BxL, 0, empty), empty).astype(jnp.int32)
    token = jnp.broadcast_to(jnp.arange(width * parts, dtype=jnp.int32)[:, None] // parts, (width * parts, texts))
    if tables.head.shape[0] > empty + 1:
        ids, token = _halved(tables, ids)
    length = ids.shape[1]
    ids_LxB = ids.T
    head, rest = (
        jnp.moveaxis(table[ids_LxB], 2, 1).reshape(length * parts, texts, 2) for table in (tables.head, tables.rest)
    )
    tag_class = tables.tag_class[ids_LxB]
    if parts > 1:
        no_tag = jnp.full((length, parts - 1, texts), tables.tag_class[empty])
        tag_class = jnp.concatenate([tag_class[:, None], no_tag], 1).reshape(length * parts, texts)
    token = jnp.concatenate([token, jnp.full((2, texts), width, jnp.int32)])
    newline = a.NEWLINE << t.TRIE_BITS
    closing = jnp.broadcast_to(jnp.asarray([newline | t.DEAD, newline], jnp.int32)[:, None, None], (2, texts, 2))
    head = jnp.concatenate([head, jnp.zeros((2, texts, 2), jnp.int32)])
    rest = jnp.concatenate([rest, closing])
    tag_class = jnp.concatenate([tag_class, jnp.full((2, texts), tables.tag_class[empty])])

    carry = _Carry(*[jnp.zeros(texts, jnp.int32)] * 14)
    carry, (one, two, three, four) = jax.lax.scan(
        lambda carry, step: _step(tables, carry, *step), carry, (head, rest, tag_class, token)
    )
    flag = lambda bit: ((one >> bit) & 1).astype(bool)  # noqa: E731
    closing_word = jnp.arange(one.shape[0])[:, None] == one.shape[0] - 1  # not part of the text
    return Words(
        word=flag(14), boundary=flag(15), passed=flag(16), upper=flag(17), option=flag(18) & ~closing_word,
        zone=(one >> 19) & 7, option_letter=(one >> 22) & 0x3F, state=one & 0x3FFF, led=flag(28),
        gap=two & 0x7FFF, number=two >> 15, content=three, first=four & 0xFFFF, last=four >> 16, end=carry.tag,
    )  # fmt: skip


def _halved(tables: Tables, ids: Array) -> tuple[Array, Array]:
    """Rows of the tables to read [B, L + 8], up to eight tokens in halves, and the token of each [L + 8, B]."""
    width = ids.shape[1]
    empty = tables.split.shape[0] - 1
    position, steps = jnp.arange(width)[None], jnp.arange(width + _HALVED)[None]
    first_half = tables.split[ids]
    token = jnp.full((ids.shape[0], 1), -1, jnp.int32)
    source = jnp.broadcast_to(steps, (ids.shape[0], width + _HALVED))
    half = jnp.zeros_like(source)
    for number in range(_HALVED):
        token = jnp.where((first_half > 0) & (position > token), position, width + _HALVED).min(1, keepdims=True)
        begin = token + number
        source = source - (steps > begin).astype(jnp.int32)
        half = half + jnp.where(steps == begin, 1, jnp.where(steps == begin + 1, 2, 0))
    token = jnp.minimum(source, width - 1)
    unsplit = jnp.where(source < width, jnp.take_along_axis(ids, token, 1), empty)
    rows = jnp.where(half > 0, jnp.take_along_axis(first_half, token, 1) + half - 1, unsplit)
    return rows.astype(jnp.int32), token.T.astype(jnp.int32)


def _step(tables: Tables, carry: _Carry, head_pair: Array, rest_pair: Array, tag_class: Array, token: Array):
    """One part of a token: the next carry, and the word that ends in it packed in four int32[B] (see `read_words`)."""
    inside = carry.trie != t.OUT
    head = jnp.where(inside, head_pair[:, 1], head_pair[:, 0])
    rest = jnp.where(inside, rest_pair[:, 1], rest_pair[:, 0])
    column, capitals = head & ((1 << t.HEAD_BITS) - 1), head >> t.HEAD_BITS
    tail, marks = rest & ((1 << t.TRIE_BITS) - 1), rest >> t.TRIE_BITS
    tag = tables.tag_next[tag_class, carry.tag].astype(jnp.int32)
    zone = tables.tag_zone[tag]

    # The letters before the first separator continue the word, or begin one.
    has_head = column != t.NO_HEAD
    begins = has_head & ~inside
    source = jnp.where(inside, carry.trie, t.ROOT)
    cell = tables.trie[tables.trie_base[source] + column]
    target = jnp.where(cell >> t.TRIE_BITS == source, cell & ((1 << t.TRIE_BITS) - 1), t.DEAD)
    target = jnp.where(column == t.ACCENT_HEAD, source, target)
    trie = jnp.where(has_head, target, carry.trie)
    before = jnp.where(begins, carry.gap, carry.before)
    led = jnp.where(begins, carry.lead & a.SIGNS, carry.led)
    first = jnp.where(begins, token, carry.first)
    word_zone = jnp.where(begins, zone, carry.zone)
    upper = jnp.where(begins, capitals & 1, carry.upper)
    gap = jnp.where(begins, 0, carry.gap)
    last = jnp.where(has_head, token, carry.last)

    # A separator ends the word being read.
    number = tables.word_of[trie]
    kind = tables.word_class[number]
    separated = marks != 0
    ends = separated & (trie != t.OUT)
    tag_name = ((kind & t.TAG_NAME) != 0) & ((before & a.LESS) != 0)
    word = ends & ~tag_name
    gap = jnp.where(ends & tag_name, before, gap)
    joined = gap | jnp.where(gap != 0, marks & ~a.CLOSES_FIRST, marks)
    behind_line = (gap & a.NEWLINE) != 0
    joined = joined | jnp.where(behind_line & ((marks & a.NEWLINE) != 0), a.BLANK_LINE, 0)
    joined = joined | jnp.where(behind_line & ((marks & (a.HYPHEN | a.OTHER)) != 0), a.BULLET, 0)

    boundary = ((carry.previous & _ANY) == 0) | (word_zone != carry.previous_zone)
    boundary = boundary | _begins_sentence(before, carry.previous, kind, upper)
    broken = boundary | ((before & PHRASE_BREAKS) != 0)
    phrase = jnp.where(broken, 0, carry.phrase)
    lexeme = tables.lexeme[number]
    follows = tables.phrase_next[tables.phrase_row[phrase], lexeme].astype(jnp.int32)
    passed = follows >> 14
    follows = follows & (t.LOOP - 1)
    from_root = tables.phrase_next[tables.phrase_row[0], lexeme].astype(jnp.int32) & (t.LOOP - 1)
    hit = jnp.where(passed == 1, from_root, follows)
    content = carry.content + (word & (passed == 0)).astype(jnp.int32) + (word & broken).astype(jnp.int32)

    letter = carry.previous >> 16
    closes = (before & a.CLOSES_FIRST) != 0
    option = closes & (letter != 0) & ((carry.previous & _BEGAN_SENTENCE) != 0)
    option_letter = jnp.where(closes & ((carry.previous & _CAPITAL) != 0), letter, 0)
    flags = (boundary, passed == 1, upper == 1, option)
    one = hit | 1 << 14 | sum(flag.astype(jnp.int32) << 15 + bit for bit, flag in enumerate(flags))
    one = one | word_zone << 19 | option_letter << 22 | (led != 0).astype(jnp.int32) << 28
    previous = (kind & (t.SHORT | t.NUMBER | t.OPEN)) | _ANY | (kind >> t.LETTER_SHIFT) << 16
    previous = previous | jnp.where(boundary, _BEGAN_SENTENCE, 0) | jnp.where(upper == 1, _CAPITAL, 0)
    out = (jnp.where(word, one, 0), jnp.where(word, before | number << 15, 0), content, first | last << 16)

    # The letters after the last separator begin the next word.
    has_tail = tail != t.OUT
    answering = (zone == tags.ANSWER) | (zone == tags.ANSWER_ALONE)
    lead = jnp.where(answering, carry.lead | marks, 0)
    carry = _Carry(
        trie=jnp.where(separated, tail, trie),
        tag=tag,
        phrase=jnp.where(word, follows, carry.phrase),
        content=content,
        gap=jnp.where(has_tail, 0, jnp.where(separated, joined, gap)),
        before=jnp.where(has_tail, joined, before),
        lead=lead,
        led=jnp.where(has_tail, lead & a.SIGNS, led),
        first=jnp.where(has_tail, token, first),
        last=jnp.where(has_tail, token, last),
        zone=jnp.where(has_tail, zone, word_zone),
        upper=jnp.where(has_tail, capitals >> 1, upper),
        previous=jnp.where(word, previous, carry.previous),
        previous_zone=jnp.where(word, word_zone, carry.previous_zone),
    )
    return carry, out


def _begins_sentence(gap: Array, previous: Array, kind: Array, upper: Array) -> Array:
    """`text_words._begins_sentence` in jit; `previous` as in `_Carry`, `kind` the word's class."""

    def has(*flags: int) -> Array:
        return (gap & sum(flags)) != 0

    capital = upper == 1
    was_number, was_short = (previous & t.NUMBER) != 0, (previous & t.SHORT) != 0
    wrapped = has(a.NEWLINE) & capital & (((previous & t.OPEN) == 0) | (gap > a.SPACE | a.NEWLINE))
    first = (previous & _BEGAN_SENTENCE) != 0
    numbered = was_number & ~first & has(a.SPACE, a.NEWLINE)
    numbered = numbered & (has(a.CLOSES_FIRST, a.COLON) | (has(a.HYPHEN) & capital))
    bare = capital & ~was_number & ((kind & t.NUMBER) == 0)
    spaced = ~(was_number & first)
    stopped = has(a.STOP) & ~was_short & jnp.where(gap == a.STOP, bare, spaced)
    return has(a.QUESTION, a.BLANK_LINE, a.BULLET) | wrapped | numbered | stopped
