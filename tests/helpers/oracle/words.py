"""One text as words with their phrase states, byte by byte."""

from dataclasses import dataclass

from chestx_jax.lexicon import alphabet, tags
from chestx_jax.lexicon.alphabet import (
    BLANK_LINE,
    BRACKET,
    BULLET,
    CLOSES_FIRST,
    COLON,
    COMMA,
    DOUBT,
    HYPHEN,
    LESS,
    NEWLINE,
    QUESTION,
    SEMICOLON,
    SPACE,
    STOP,
)
from chestx_jax.lexicon.automaton import Automaton
from chestx_jax.lexicon.lexicon import Lexicon

PHRASE_BREAKS = COMMA | SEMICOLON | COLON | BRACKET
END = b"\xff"  # the word appended to every text, so that the last gap is read too


@dataclass(frozen=True)
class Word:
    """One word of a text. `first` and `last` (inclusive) are byte offsets in the UTF-8 text."""

    text: bytes  # folded
    gap: int  # flags of the separators before it
    upper: bool  # it begins with a capital
    first: int
    last: int
    zone: int  # tags.BEFORE … of its first byte
    boundary: bool  # it begins a sentence
    state: int  # automaton state whose record counts here
    passed: bool  # it interrupts a phrase without breaking it, or is no lexeme of any phrase
    content: int  # number of lexemes so far that were not passed over


def is_number(word: bytes) -> bool:
    """Whether a folded word is digits only."""
    return set(word) == {alphabet.DIGIT}


def begins_sentence(
    gap: int, previous: bytes, previous_first: bool, previous_short: bool, previous_open: bool, word: bytes,
    upper: bool,
) -> bool:  # fmt: skip
    """Whether a sentence begins with `word`, which follows `previous` behind a gap.

    `gap` holds the flags of the separators; `upper`: the word begins with a capital; `previous_first`: the word before
    the gap began its sentence (a list number, "1. The"); `previous_short`: it is an abbreviation or a single letter
    ("e.g.", "Dr."); `previous_open`: it ends no sentence ("of"). A line end divides sentences only before a capital, a
    list mark or a blank line, because reports are often wrapped; a number within a sentence numbers a list.
    """
    if (gap & QUESTION and not gap & DOUBT) or gap & (BLANK_LINE | BULLET):
        return True
    if gap & NEWLINE and upper and not gap & COMMA and not (previous_open and gap in (NEWLINE, NEWLINE | SPACE)):
        return True
    numbers = gap & (CLOSES_FIRST | COLON) or (gap & HYPHEN and upper)
    if is_number(previous) and not previous_first and numbers and gap & (SPACE | NEWLINE):
        return True
    if not gap & STOP or previous_short:
        return False
    if gap == STOP:  # "5.2", "report.Next"
        return upper and not is_number(previous) and not is_number(word)
    return not (is_number(previous) and previous_first)


def _zones(data: bytes) -> list[int]:
    """The zones before the first and after each byte."""
    state = tags.states()[0]
    zones = [state[0]]
    for byte in data:
        state = tags.step(state, byte)
        zones.append(state[0])
    return zones


def read_words(lexicon: Lexicon, automaton: Automaton, data: bytes) -> list[Word]:
    """The words of a text in order, and an `END` word after them."""
    zones = _zones(data)
    words: list[Word] = []
    gap, state, content = 0, 0, 0
    previous, previous_first, zone = b"", False, tags.BEFORE
    runs = [*alphabet.split(data), (b"", alphabet.NEWLINE, len(data)), (END, 0, len(data))]
    ends = [*(offset for _, _, offset in runs[1:]), len(data) + 1]
    for (run, marks, offset), end in zip(runs, ends, strict=True):
        if not run:
            gap = alphabet.join_gap(gap, marks)
            continue
        if gap & LESS and run in (b"think", b"answer"):  # a tag's name is not a word: the gap continues past it
            continue
        if not words and gap & QUESTION and run != END:
            gap |= DOUBT
        word_zone = zones[min(offset + 1, len(data))]
        upper = offset < len(data) and 65 <= data[offset] <= 90
        short = (len(previous) == 1 and previous.isalpha()) or previous.decode("latin1") in lexicon.abbreviations
        is_open = previous.decode("latin1") in lexicon.open_words and not words[-1].gap & COLON
        boundary = begins_sentence(gap, previous, previous_first, short, is_open, run, upper)
        boundary = boundary or not words or word_zone != zone
        if boundary or gap & PHRASE_BREAKS:
            state, content = 0, content + 1  # skipping a number keeps words across punctuation from being adjacent
        lexeme = lexicon.lexemes.get("0" if is_number(run) else run.decode("latin1"), 0)
        passed = bool(automaton.loops[state, lexeme])
        content += not passed
        hit, state = int(automaton.hit[state, lexeme]), int(automaton.next[state, lexeme])
        words.append(Word(run, gap, upper, offset, end - 1, word_zone, boundary, hit, passed, content))
        gap, previous, previous_first, zone = 0, run, boundary, word_zone
    return words
