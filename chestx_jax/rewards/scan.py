"""Sampled token ids as words: the three automata of `lexicon/token_tables.py` followed in one scan over tokens.

The plain twin is `lexicon/words.py`. Arrays are time-major, [T, B]: T = parts of all tokens and two closing steps.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int

from chestx_jax.lexicon import alphabet as a
from chestx_jax.lexicon import tags
from chestx_jax.lexicon import token_tables as t
from chestx_jax.lexicon.token_tables import Tables

_HALVED = 8  # tokens of a text that are read in halves; a vocabulary has a handful of such tokens
_PHRASE_BREAKS = a.COMMA | a.SEMICOLON | a.COLON | a.BRACKET


@struct.dataclass
class Words:
    """The words of B texts, each at the step where it ends; `word` is False at the other steps."""

    word: Bool[Array, "T B"]
    boundary: Bool[Array, "T B"]  # a sentence begins with it
    foreign: Bool[Array, "T B"]
    option: Bool[Array, "T B"]  # the first word of a listed option
    passed: Bool[Array, "T B"]  # it interrupts a phrase without breaking it
    upper: Bool[Array, "T B"]
    zone: Int[Array, "T B"]
    marked: Int[Array, "T B"]  # number of the capital that precedes it with a closing bracket ("A)"); 0: none
    gap: Int[Array, "T B"]  # flags of the separators before it
    led: Bool[Array, "T B"]  # signs stand before it in its answer block
    number: Int[Array, "T B"]  # word number of the tables
    state: Int[Array, "T B"]  # phrase state whose record counts
    content: Int[Array, "T B"]  # lexemes that were not passed over, so far
    first: Int[Array, "T B"]
    last: Int[Array, "T B"]
    end: Int[Array, " B"]  # state of the tag automaton after the text


@struct.dataclass
class _Carry:
    trie: Array
    tag: Array
    phrase: Array
    content: Array
    gap: Array  # of the separators since the last word
    before: Array  # gap before the word being read
    lead: Array  # flags of the separators since the answer block was opened; 0 outside of one
    led: Array  # whether signs were among them where the word being read began
    first: Array
    last: Array
    zone: Array
    upper: Array
    earlier: Array  # class of the last word: SHORT, NUMBER and the bits below
    earlier_zone: Array


_BEGAN_SENTENCE, _ANY, _CAPITAL = 1 << 12, 1 << 13, 1 << 14  # of `earlier`, above the word class


def words(tables: Tables, ids: Int[Array, "B L"], length: Int[Array, " B"]) -> Words:
    """Read `length` tokens of each row. Ids beyond the vocabulary read as empty."""
    rows, width = ids.shape
    empty = tables.split.shape[0] - 1
    parts = tables.head.shape[1]
    ids = jnp.where(jnp.arange(width)[None] < length[:, None], jnp.clip(ids, 0, empty), empty).astype(jnp.int32)
    token = jnp.broadcast_to(jnp.arange(width * parts, dtype=jnp.int32)[:, None] // parts, (width * parts, rows))
    if tables.head.shape[0] > empty + 1:
        ids, token = _halved(tables, ids)
    read = ids.shape[1]
    flat = ids.T  # [L, B]
    head, rest = (
        jnp.moveaxis(table[flat], 2, 1).reshape(read * parts, rows, 2) for table in (tables.head, tables.rest)
    )
    tag_class = tables.tag_class[flat]
    if parts > 1:
        silent = jnp.full((read, parts - 1, rows), tables.tag_class[empty])
        tag_class = jnp.concatenate([tag_class[:, None], silent], 1).reshape(read * parts, rows)
    token = jnp.concatenate([token, jnp.full((2, rows), width, jnp.int32)])
    newline = a.NEWLINE << t.TRIE_BITS
    closing = jnp.broadcast_to(jnp.asarray([newline | t.FOREIGN, newline], jnp.int32)[:, None, None], (2, rows, 2))
    head = jnp.concatenate([head, jnp.zeros((2, rows, 2), jnp.int32)])
    rest = jnp.concatenate([rest, closing])
    tag_class = jnp.concatenate([tag_class, jnp.full((2, rows), tables.tag_class[empty])])

    zero = jnp.zeros(rows, jnp.int32)
    carry = _Carry(zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
    carry, (one, two, three, four) = jax.lax.scan(
        lambda carry, step: _step(tables, carry, *step), carry, (head, rest, tag_class, token)
    )
    flag = lambda bit: ((one >> bit) & 1).astype(bool)  # noqa: E731
    closing_word = jnp.arange(one.shape[0])[:, None] == one.shape[0] - 1  # reads as foreign, but is nobody's
    return Words(
        word=flag(14), foreign=flag(15) & ~closing_word, boundary=flag(16), passed=flag(17), upper=flag(18),
        option=flag(22) & ~closing_word,
        zone=(one >> 19) & 7, marked=(one >> 23) & 0x3F, state=one & 0x3FFF, led=flag(29),
        gap=two & 0x7FFF, number=two >> 15, content=three, first=four & 0xFFFF, last=four >> 16, end=carry.tag,
    )  # fmt: skip


def _halved(tables: Tables, ids: Array) -> tuple[Array, Array]:
    """Rows of the tables to read [B, L + 8] and the tokens they stem from [L + 8, B]: up to eight tokens in halves."""
    width = ids.shape[1]
    empty = tables.split.shape[0] - 1
    at, steps = jnp.arange(width)[None], jnp.arange(width + _HALVED)[None]
    first = tables.split[ids]
    place = jnp.full((ids.shape[0], 1), -1, jnp.int32)
    source = jnp.broadcast_to(steps, (ids.shape[0], width + _HALVED))
    half = jnp.zeros_like(source)
    for number in range(_HALVED):
        place = jnp.where((first > 0) & (at > place), at, width + _HALVED).min(1, keepdims=True)
        begin = place + number
        source = source - (steps > begin).astype(jnp.int32)
        half = half + jnp.where(steps == begin, 1, jnp.where(steps == begin + 1, 2, 0))
    token = jnp.minimum(source, width - 1)
    whole = jnp.where(source < width, jnp.take_along_axis(ids, token, 1), empty)
    rows = jnp.where(half > 0, jnp.take_along_axis(first, token, 1) + half - 1, whole)
    return rows.astype(jnp.int32), token.T.astype(jnp.int32)


def _step(tables: Tables, carry: _Carry, head_pair: Array, rest_pair: Array, tag_class: Array, token: Array):
    inside = carry.trie != t.OUT
    head = jnp.where(inside, head_pair[:, 1], head_pair[:, 0])
    rest = jnp.where(inside, rest_pair[:, 1], rest_pair[:, 0])
    column, capitals = head & ((1 << t.HEAD_BITS) - 1), head >> t.HEAD_BITS
    tail, marks = rest & ((1 << t.TRIE_BITS) - 1), rest >> t.TRIE_BITS
    tag = tables.tag_next[tag_class, carry.tag].astype(jnp.int32)
    zone = tables.tag_zone[tag]

    # The letters before the first separator go on with the word, or begin one.
    has_head = column != t.NO_HEAD
    begins = has_head & ~inside
    source = jnp.where(inside, carry.trie, t.ROOT)
    cell = tables.trie[tables.trie_base[source] + column]
    target = jnp.where(cell >> t.TRIE_BITS == source, cell & ((1 << t.TRIE_BITS) - 1), t.DEAD)
    target = jnp.where((column == t.FOREIGN_HEAD) | (source == t.FOREIGN), t.FOREIGN, target)
    trie = jnp.where(has_head, target, carry.trie)
    before = jnp.where(begins, carry.gap, carry.before)
    led = jnp.where(begins, carry.lead & a.SIGNS, carry.led)
    first = jnp.where(begins, token, carry.first)
    word_zone = jnp.where(begins, zone, carry.zone)
    upper = jnp.where(begins, capitals & 1, carry.upper)
    gap = jnp.where(begins, 0, carry.gap)
    last = jnp.where(has_head, token, carry.last)

    # A separator ends the word that was being read.
    number = tables.word_of[trie]
    kind = tables.word_class[number]
    separated = marks != 0
    ends = separated & (trie != t.OUT)
    tag_name = ((kind & t.TAG_NAME) != 0) & ((before & a.LESS) != 0)
    word = ends & ~tag_name
    gap = jnp.where(ends & tag_name, before, gap)
    joined = gap | jnp.where(gap != 0, marks & ~a.CLOSES_FIRST, marks)
    joined = joined | jnp.where((gap & marks & a.NEWLINE) != 0, a.BLANK_LINE, 0)

    boundary = ((carry.earlier & _ANY) == 0) | (word_zone != carry.earlier_zone)
    boundary = boundary | _begins_sentence(before, carry.earlier, kind, upper)
    broken = boundary | ((before & _PHRASE_BREAKS) != 0)
    phrase = jnp.where(broken, 0, carry.phrase)
    lexeme = tables.lexeme[number]
    follows = tables.phrase_next[tables.phrase_row[phrase], lexeme].astype(jnp.int32)
    passed = follows >> 14
    follows = follows & (t.LOOP - 1)
    from_root = tables.phrase_next[tables.phrase_row[0], lexeme].astype(jnp.int32) & (t.LOOP - 1)
    hit = jnp.where(passed == 1, from_root, follows)
    content = carry.content + (word & (passed == 0)).astype(jnp.int32) + (word & broken).astype(jnp.int32)

    letter = carry.earlier >> 16
    closes = (before & a.CLOSES_FIRST) != 0
    option = closes & (letter != 0) & ((carry.earlier & _BEGAN_SENTENCE) != 0)
    marked = jnp.where(closes & ((carry.earlier & _CAPITAL) != 0), letter, 0)
    bits = (trie == t.FOREIGN, boundary, passed == 1, upper == 1)
    one = hit | 1 << 14 | sum(bit.astype(jnp.int32) << 15 + place for place, bit in enumerate(bits))
    one = one | word_zone << 19 | option.astype(jnp.int32) << 22 | marked << 23
    one = one | (led != 0).astype(jnp.int32) << 29
    earlier = (kind & (t.SHORT | t.NUMBER)) | _ANY | (kind >> t.LETTER_SHIFT) << 16
    earlier = earlier | jnp.where(boundary, _BEGAN_SENTENCE, 0) | jnp.where(upper == 1, _CAPITAL, 0)
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
        earlier=jnp.where(word, earlier, carry.earlier),
        earlier_zone=jnp.where(word, word_zone, carry.earlier_zone),
    )
    return carry, out


def _begins_sentence(gap: Array, earlier: Array, kind: Array, upper: Array) -> Array:
    """`lexicon.words.begins_sentence` on flags."""

    def has(*flags: int) -> Array:
        return (gap & sum(flags)) != 0

    capital = upper == 1
    was_number, was_short = (earlier & t.NUMBER) != 0, (earlier & t.SHORT) != 0
    wrapped = has(a.NEWLINE) & (capital | has(a.HYPHEN, a.OTHER))
    bare = capital & ~was_number & ((kind & t.NUMBER) == 0)
    spaced = ~(was_number & ((earlier & _BEGAN_SENTENCE) != 0))
    stopped = has(a.STOP) & ~was_short & jnp.where(gap == a.STOP, bare, spaced)
    return has(a.QUESTION, a.BLANK_LINE) | wrapped | stopped
