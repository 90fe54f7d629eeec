"""Texts as words with their phrase states, on the host: bytes are scanned here, tokens in `token_words`."""

import re
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from chestx_jax.findings.words import PHRASE_BREAKS, Words
from chestx_jax.lexicon import alphabet as a
from chestx_jax.lexicon import automaton, tags
from chestx_jax.lexicon.lexicon import Lexicon

_WORD = re.compile(
    b"(?:[%s][\x80-\xbf]*)+" % b"".join(b"\\x%02x" % byte for byte in range(256) if not a.MARK_OF_BYTE[byte])
)
_TAG = re.compile(b"|".join(tags.TAGS), re.IGNORECASE)
_TAG_NAMES = (b"think", b"answer")
_gap_flags = cache(a.gap_flags)
_COLUMNS = ("flags", "zone", "gap", "state", "content", "first", "last")  # of a word; `flags` are the first five masks


def read_words(lexicon: Lexicon, texts: Sequence[bytes]) -> Words:
    """The words of B texts and a closing word after each, in as many steps as the longest text needs."""
    rows = [_words(lexicon, data) for data in texts]
    words = np.zeros((max(map(len, rows), default=1), len(rows), len(_COLUMNS)), np.int32)
    words[..., 4] = 1 << 29  # behind a text: content of no match
    for b, row in enumerate(rows):
        words[: len(row), b] = row
    columns = np.ascontiguousarray(np.moveaxis(words, -1, 0))
    masks = [(columns[0] >> bit & 1).astype(bool) for bit in range(5)]
    return Words(*masks, *columns[1:])


def _words(lexicon: Lexicon, data: bytes) -> list[tuple[int, ...]]:
    """The words of one text, each as its `_COLUMNS`."""
    machine = automaton.build(lexicon)
    (lexemes, abbreviations, open_words), width = _spellings(lexicon), machine.next.shape[1]
    next_state, hit, loops = (table.reshape(-1).data for table in (machine.next, machine.hit, machine.loops))
    zones = _zones(data)
    zone_end, zone = next(zones)
    words: list[tuple[int, ...]] = []
    gap = state = content = end = 0
    previous, previous_boundary, previous_zone, previous_led = b"", False, -1, 0
    spans = [match.span() for match in _WORD.finditer(data)]
    for first, last in [*spans, (len(data), len(data))]:
        closing = last == first
        word = b"\xff" if closing else a.fold_word(data[first:last])
        if first > end:
            gap = a.join_gap(gap, _gap_flags(data[end:first]))
        if closing:
            gap = a.join_gap(gap, a.NEWLINE)
        elif not words and gap & a.QUESTION:
            gap |= a.DOUBT
        end = last
        if gap & a.LESS and word in _TAG_NAMES:  # a tag's name is not a word: the gap continues past it
            continue
        while first >= zone_end:
            zone_end, zone = next(zones)
        boundary = zone != previous_zone or _begins_sentence(
            gap,
            previous,
            previous_boundary,
            word,
            b"A" <= data[first : first + 1] <= b"Z",
            abbreviations,
            frozenset() if previous_led else open_words,
        )
        if boundary or gap & PHRASE_BREAKS:
            state, content = 0, content + 1  # skipping a number keeps words across punctuation from being adjacent
        cell = state * width + lexemes.get(b"0" if a.is_number(word) else word, 0)
        passed = loops[cell]
        content += not passed
        option = gap & a.CLOSES_FIRST and len(previous) == 1 and previous.isalpha() and previous_boundary
        flags = 1 | boundary << 1 | closing << 2 | (bool(option) and not closing) << 3 | passed << 4
        words.append((flags, zone, gap, hit[cell], content, first, last - (not closing)))
        state = next_state[cell]
        previous_led = gap & a.COLON  # "Effusion: no" ends
        gap, previous, previous_boundary, previous_zone = 0, word, boundary, zone
    return words


@cache
def _spellings(lexicon: Lexicon) -> tuple[dict[bytes, int], frozenset[bytes], frozenset[bytes]]:
    """The lexeme of each spelling, the abbreviations, and the words that end no line's sentence, as bytes."""
    lexemes = {word.encode("latin1"): lexeme for word, lexeme in lexicon.lexemes.items()}
    abbreviations, open_words = (
        frozenset(word.encode("latin1") for word in words) for words in (lexicon.abbreviations, lexicon.open_words)
    )
    return lexemes, abbreviations, open_words


def _zones(data: bytes) -> Iterator[tuple[int, int]]:
    """The zones of a text in order, each with the offset where it ends."""
    zone = tags.BEFORE
    for match in _TAG.finditer(data):
        yield match.end(), zone
        zone = tags.after_tag(zone, match.group().lower())
    yield len(data) + 1, zone


def _begins_sentence(
    gap: int, previous: bytes, previous_boundary: bool, word: bytes, upper: bool,
    abbreviations: frozenset[bytes], open_words: frozenset[bytes],
) -> bool:  # fmt: skip
    """Whether a sentence begins with `word`, which follows `previous` behind a gap with these flags.

    A full stop ends no sentence after an abbreviation or a single letter ("e.g.", "Dr."), inside of a number ("5.2"),
    nor after a list number ("1. The"). Reports are often wrapped, so a line end divides sentences only before a list
    mark, a blank line, or a capital that follows no comma and no open word ("no evidence of"). A number in the middle
    of a sentence begins the next item of a list ("No effusion 2) Mild edema", "Step 2: …").
    """
    if a.asks(gap) or gap & (a.BLANK_LINE | a.BULLET):
        return True
    if gap & a.NEWLINE and upper and not gap & a.COMMA and (gap > a.SPACE | a.NEWLINE or previous not in open_words):
        return True
    numbers = gap & (a.CLOSES_FIRST | a.COLON) or (gap & a.HYPHEN and upper)
    if numbers and gap & (a.SPACE | a.NEWLINE) and a.is_number(previous) and not previous_boundary:
        return True
    if not gap & a.STOP or (len(previous) == 1 and previous.isalpha()) or previous in abbreviations:
        return False
    if gap == a.STOP:  # "5.2", "report.Next"
        return upper and not a.is_number(previous) and not a.is_number(word)
    return not (a.is_number(previous) and previous_boundary)
