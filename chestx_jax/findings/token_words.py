"""Sampled token ids as words, by the automata of `lexicon/token_tables.py`. Bytes are scanned in `text_words`.

Arrays are time-major, [T, B]: B texts, T steps (the parts of all tokens and two closing steps). A step reads the
letters of a token before its first separator (its head), its separators, and the letters behind (its tail).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from chestx_jax.findings.jit_arrays import JAX, combine_so_far, compose_maps, states_before
from chestx_jax.findings.rules.nearest import before, up_to_here
from chestx_jax.findings.words import PHRASE_BREAKS, Words
from chestx_jax.lexicon import alphabet as a
from chestx_jax.lexicon import tags
from chestx_jax.lexicon import token_tables as t
from chestx_jax.lexicon.token_tables import Tables

_HALVED = 8  # tokens of a text that are read in halves at most; a vocabulary has few such tokens
_BEGINS = 1 << 16  # flag of a gap that begins here
_BOUNDARY, _PASSED = 1 << 15, 1 << 16  # flags of a phrase state
_CAPITAL, _ZONE = t.LETTER_SHIFT + 5, t.LETTER_SHIFT + 6  # bits above the class of a word


class _Steps(NamedTuple):
    """What each step holds, [T, B], before it is known in which words: pairs for outside and inside of a word."""

    head: tuple[Array, Array]  # column of the leading letters in the trie, and capital bits
    rest: tuple[Array, Array]  # trie state after the trailing letters, and flags of the separators
    tag_class: Array
    token: Array


class _Letters(NamedTuple):
    """What each step does to the word being read, [T, B]."""

    has_head: Bool[Array, "T B"]
    begins: Bool[Array, "T B"]  # its head begins a word
    ends: Bool[Array, "T B"]  # its separators end a word
    has_tail: Bool[Array, "T B"]
    capitals: Int[Array, "T B"]  # bits of the head and the tail
    marks: Int[Array, "T B"]  # flags of the separators
    trie: Int[Array, "T B"]  # state after the head


def read_words(tables: Tables, ids_BxL: Int[Array, "B L"], length_B: Int[Array, " B"]) -> Words:
    """The words of the first `length` tokens of each row. Ids beyond the vocabulary read as empty tokens."""
    steps = _steps(tables, ids_BxL, length_B)
    letters = _letters(tables, steps)
    zone, end = _zones(tables, steps)
    number = tables.word_of[letters.trie]
    kind = tables.word_class[number]

    # A tag's name behind "<" is no word: the gap goes on past it.
    named = letters.ends & ((kind & t.TAG_NAME) != 0)
    cues = up_to_here(JAX, less=(letters.marks & a.LESS) != 0, solid=letters.ends & ~named)
    less, solid = before(JAX, cues.less).step, before(JAX, cues.solid).step
    word = letters.ends & ~(named & (less >= 0) & (less >= solid))
    gap = _before(combine_so_far(_join_gaps, jnp.where(word, _BEGINS | letters.marks, letters.marks)), 0) & ~_BEGINS

    # Where the word began, and the last of its letters.
    answering = (zone == tags.ANSWER) | (zone == tags.ANSWER_ALONE)
    capital_head, capital_tail = letters.capitals & 1, letters.capitals >> 1
    began = 16 | zone << 1 | jnp.where(letters.has_tail, capital_tail, capital_head)
    cues = up_to_here(
        JAX,
        began=jnp.where(letters.begins | letters.has_tail, began, 0),
        letters=letters.has_head | letters.has_tail,
        word=word,
        signs=answering & ((letters.marks & a.SIGNS) != 0),
        outside=~answering,
    )
    step = jnp.broadcast_to(jnp.arange(word.shape[0], dtype=jnp.int32)[:, None], word.shape)
    earlier = before(JAX, cues.began)
    first = jnp.where(letters.begins, step, earlier.step)
    upper = jnp.where(letters.begins, capital_head, earlier.value & 1)
    zone = jnp.where(letters.begins, zone, (earlier.value >> 1) & 7)
    last = jnp.where(letters.has_head, step, before(JAX, cues.letters).step)
    led = before(JAX, cues.signs).step > before(JAX, cues.outside).step

    # What is known of the word before.
    previous = before(JAX, cues.word).step
    gap = gap | jnp.where((previous < 0) & ((gap & a.QUESTION) != 0), a.DOUBT, 0)
    answers = (gap & a.COLON) != 0  # "Effusion: no" ends
    packed = jnp.where(answers, kind & ~t.OPEN, kind) | upper << _CAPITAL | zone << _ZONE
    packed = jnp.where(previous < 0, 0, jnp.take_along_axis(packed, jnp.maximum(previous, 0), 0))
    forced, unless_begun = _sentence_rules(gap, kind, upper == 1, packed)
    forced = forced | (previous < 0) | (zone != packed >> _ZONE)
    breaks = (gap & PHRASE_BREAKS) != 0
    flags = enumerate((forced, unless_begun, breaks))
    symbols = tables.lexeme[number] | sum(flag.astype(jnp.int32) << 16 + bit for bit, flag in flags)
    state = states_before(lambda *state: _phrase_step(tables, *state), (symbols,), word, 0)
    after = _phrase_step(tables, state, symbols)
    boundary, passed = (after & _BOUNDARY) != 0, (after & _PASSED) != 0
    from_root = tables.phrase_next[tables.phrase_row[0], tables.lexeme[number]].astype(jnp.int32) & (t.LOOP - 1)
    advances = (word & ~passed).astype(jnp.int32) + (word & (boundary | breaks)).astype(jnp.int32)

    letter = (packed >> t.LETTER_SHIFT) & 31
    closes = (gap & a.CLOSES_FIRST) != 0
    in_text = step < word.shape[0] - 1  # the closing word is not part of the text

    def of_words(values: Array) -> Array:
        return jnp.where(word, values, 0)

    def token_at(where: Array) -> Array:
        return jnp.take_along_axis(steps.token, jnp.maximum(where, 0), 0)

    return Words(
        word=word,
        boundary=word & boundary,
        closing=word & ~in_text,
        option=word & in_text & closes & (letter != 0) & ((state & _BOUNDARY) != 0),
        passed=word & passed,
        zone=of_words(zone),
        gap=of_words(gap),
        state=of_words(jnp.where(passed, from_root, after & (t.LOOP - 1))),
        content=JAX.sum_so_far(advances),
        first=token_at(first),
        last=token_at(last),
        upper=word & (upper == 1),
        option_letter=of_words(jnp.where(closes & ((packed >> _CAPITAL & 1) == 1), letter, 0)),
        led=word & led,
        number=of_words(number),
        end=end,
    )


def _steps(tables: Tables, ids_BxL: Array, length_B: Array) -> _Steps:
    """The tables' rows of each token, part by part, and two steps that close the text."""
    texts, width = ids_BxL.shape
    empty = tables.split.shape[0] - 1
    parts = tables.head.shape[1]
    ids = jnp.where(jnp.arange(width)[None] < length_B[:, None], jnp.clip(ids_BxL, 0, empty), empty).astype(jnp.int32)
    token = jnp.broadcast_to(jnp.arange(width * parts, dtype=jnp.int32)[:, None] // parts, (width * parts, texts))
    if tables.head.shape[0] > empty + 1:
        ids, token = _halved(tables, ids)
    length = ids.shape[1]
    ids_LxB = ids.T
    newline = a.NEWLINE << t.TRIE_BITS
    closing = jnp.broadcast_to(jnp.asarray([newline | t.DEAD, newline], jnp.int32)[:, None], (2, texts))

    def pair(table: Array, closing: Array) -> tuple[Array, Array]:
        rows = jnp.moveaxis(table[ids_LxB], 2, 1).reshape(length * parts, texts, 2)
        return tuple(jnp.concatenate([rows[..., inside], closing]) for inside in range(2))  # type: ignore[return-value]

    tag_class = jnp.full((length, parts, texts), tables.tag_class[empty]).at[:, 0].set(tables.tag_class[ids_LxB])
    no_tag = jnp.full((2, texts), tables.tag_class[empty])
    return _Steps(
        head=pair(jnp.asarray(tables.head), jnp.zeros_like(closing)),
        rest=pair(jnp.asarray(tables.rest), closing),
        tag_class=jnp.concatenate([tag_class.reshape(length * parts, texts), no_tag]),
        token=jnp.concatenate([token, jnp.full((2, texts), width, jnp.int32)]),
    )


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


def _letters(tables: Tables, steps: _Steps) -> _Letters:
    """The letters and separators of each step, by the trie of words."""

    def read(state: Array, *pairs: Array) -> _Letters:
        outside, inside, rest_outside, rest_inside = pairs
        is_inside = state != t.OUT
        head, rest = jnp.where(is_inside, inside, outside), jnp.where(is_inside, rest_inside, rest_outside)
        column, marks = head & ((1 << t.HEAD_BITS) - 1), rest >> t.TRIE_BITS
        source = jnp.where(is_inside, state, t.ROOT)
        cell = tables.trie[tables.trie_base[source] + column]
        target = jnp.where(cell >> t.TRIE_BITS == source, cell & ((1 << t.TRIE_BITS) - 1), t.DEAD)
        target = jnp.where(column == t.ACCENT_HEAD, source, target)
        has_head = column != t.NO_HEAD
        trie = jnp.where(has_head, target, state)
        return _Letters(
            has_head=has_head,
            begins=has_head & ~is_inside,
            ends=(marks != 0) & (trie != t.OUT),
            has_tail=(rest & ((1 << t.TRIE_BITS) - 1)) != t.OUT,
            capitals=head >> t.HEAD_BITS,
            marks=marks,
            trie=trie,
        )

    def step(state: Array, *pairs: Array) -> Array:
        letters = read(state, *pairs)
        rest = jnp.where(state != t.OUT, pairs[3], pairs[2])
        return jnp.where(letters.marks != 0, rest & ((1 << t.TRIE_BITS) - 1), letters.trie)

    pairs = (*steps.head, *steps.rest)
    active = (steps.head[1] != t.NO_HEAD) | (steps.rest[1] != t.OUT)
    return read(states_before(step, pairs, active, t.OUT), *pairs)


def _zones(tables: Tables, steps: _Steps) -> tuple[Int[Array, "T B"], Int[Array, " B"]]:
    """The zone after each step, and the state of the tag automaton after the text.

    Which letters of a tag were read is a matter of the last few tokens; what a whole tag does to the zone is a map.
    """
    prefixes, maps = jnp.asarray(tables.tag_prefix).astype(jnp.int32), jnp.asarray(tables.tag_map)

    def step(prefix: Array, tag_class: Array) -> Array:
        return prefixes[tag_class, prefix]

    first_zone, first_prefix, first_clean = tags.parts_of(jnp.asarray(tables.tag_start))
    prefix = states_before(step, (steps.tag_class,), steps.tag_class != tables.tag_class[-1], first_prefix)
    so_far = combine_so_far(compose_maps, maps[steps.tag_class, prefix])
    zone_clean = (so_far >> (4 * first_zone).astype(jnp.uint32)).astype(jnp.int32) & 15
    last_prefix, clean = step(prefix[-1], steps.tag_class[-1]), first_clean & (zone_clean[-1] >> 3)
    return zone_clean & 7, tags.number_of(zone_clean[-1] & 7, last_prefix, clean)


def _sentence_rules(gap: Array, kind: Array, capital: Array, previous: Array) -> tuple[Array, Array]:
    """`text_words._begins_sentence` as two masks: a sentence begins here; it does unless the word before began one.

    `previous` packs the class of the word before.
    """

    def has(*flags: int) -> Array:
        return (gap & sum(flags)) != 0

    was_number, was_short = (previous & t.NUMBER) != 0, (previous & t.SHORT) != 0
    wrapped = has(a.NEWLINE) & capital & ~has(a.COMMA) & (((previous & t.OPEN) == 0) | (gap > a.SPACE | a.NEWLINE))
    numbered = was_number & has(a.SPACE, a.NEWLINE) & (has(a.CLOSES_FIRST, a.COLON) | (has(a.HYPHEN) & capital))
    bare = capital & ~was_number & ((kind & t.NUMBER) == 0)
    stopped = has(a.STOP) & ~was_short & ((gap != a.STOP) | bare)
    after_number = stopped & was_number & (gap != a.STOP)
    return a.asks(gap) | has(a.BLANK_LINE, a.BULLET) | wrapped | (stopped & ~after_number), numbered | after_number


def _phrase_step(tables: Tables, previous: Array, symbols: Array) -> Array:
    """The phrase state after a word, with `_BOUNDARY` if it begins a sentence and `_PASSED` if it is passed over."""
    forced, unless_begun, breaks = (((symbols >> 16 + bit) & 1) == 1 for bit in range(3))
    boundary = forced | (unless_begun & ((previous & _BOUNDARY) == 0))
    state = jnp.where(boundary | breaks, 0, previous & (_BOUNDARY - 1))
    follows = tables.phrase_next[tables.phrase_row[state], symbols & 0xFFFF].astype(jnp.int32)
    return (follows & (t.LOOP - 1)) | jnp.where(boundary, _BOUNDARY, 0) | (follows >> 15) * _PASSED


def _join_gaps(one: Array, two: Array) -> Array:
    """`alphabet.join_gap` of two gaps; one that begins anew replaces the other."""
    begun = (one & ~_BEGINS) != 0
    doubt = jnp.where(begun, (two & a.QUESTION) * (a.DOUBT // a.QUESTION), two & a.DOUBT)
    doubt = jnp.where((one & a.QUESTION) != 0, one & a.DOUBT, doubt)
    joined = one | jnp.where(begun, two & ~a.CLOSES_FIRST, two) & ~a.DOUBT | doubt
    behind_line = (one & a.NEWLINE) != 0
    joined = joined | jnp.where(behind_line & ((two & a.NEWLINE) != 0), a.BLANK_LINE, 0)
    joined = joined | jnp.where(behind_line & ((two & (a.HYPHEN | a.OTHER | a.QUESTION)) != 0), a.BULLET, 0)
    return jnp.where((two & _BEGINS) != 0, two, joined)


def _before(values: Array, start: int) -> Array:
    return jnp.concatenate([jnp.full_like(values[:1], start), values[:-1]])
