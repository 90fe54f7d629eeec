"""A text's words with the matches that count, its clauses and modes.

* A match is dropped if one that ends later overlaps it ("pleural" in "pleural effusion"), and is not dropped itself.
* Clauses end at sentence bounds, semicolons and terminators ("but").
"""

from collections.abc import Callable
from dataclasses import dataclass

from chestx_jax.lexicon.alphabet import BULLET, COLON, COMMA, DOUBT, SEMICOLON
from chestx_jax.lexicon.automaton import Automaton
from chestx_jax.lexicon.lexicon import ROLE, Record
from tests.helpers.oracle.words import Word

_NOTHING = Record()
# Modes of a text at a word: neutral, observing, or hypothetical in one of three ways.
NEUTRAL, OBSERVES, SUPPOSES, INTRODUCES, DEFINES = range(5)


@dataclass(frozen=True)
class Text:
    """A text's words and, for each word, its match and clause."""

    words: list[Word]
    records: list[Record]  # of the matches that count; `Record()` elsewhere
    starts: list[int]  # content number of the match's first lexeme
    breaks: list[bool]  # the word begins a clause
    modes: list[tuple[int, bool]]  # the mode, and whether a comma followed since it began

    def has(self, i: int, *roles: str) -> bool:
        return any(self.records[i].roles & ROLE[role] for role in roles)

    def entity_or_finding(self, i: int) -> bool:
        record = self.records[i]
        return bool(record.entity) or self.mention(i)

    def mention(self, i: int) -> bool:
        return bool(self.records[i].concept or self.records[i].predicate) or self.has(i, "repeats")

    def bare_side(self, i: int) -> int:
        """The side that word i names, if it is no mention and no entity."""
        return 0 if self.entity_or_finding(i) else self.records[i].side

    def comma(self, i: int) -> bool:
        return bool(self.words[i].gap & COMMA)

    def ends_before(self, i: int) -> bool:
        """Whether a phrase ends before word i."""
        closes = self.words[i].boundary or i + 1 == len(self.words)
        return closes or bool(self.words[i].gap & (COMMA | SEMICOLON))

    def ahead(self, i: int) -> bool:
        """Whether a cue at word i that may stand on either side belongs to a mention ahead of it."""
        if i + 1 == len(self.words) or self.ends_before(i + 1) or self.has(i + 1, "conjunction"):
            return False
        for j in range(i + 1, len(self.words)):
            if self.breaks[j]:
                return False
            if self.mention(j):
                return True
            if self.has(j, "verb", "negation_before"):
                return False
        return False

    def replies(self, i: int) -> bool:
        return self.has(i, "reply") and self.has(i, "negation_before") and self.ends_phrase(i)

    def ends_phrase(self, i: int) -> bool:
        return i + 1 < len(self.words) and self.ends_before(i + 1)

    def denies_ahead(self, i: int) -> bool:
        prefers = self.stands_before(i, lambda j: self.has(j, "prefers"), self.breaks.__getitem__)
        if self.has(i, "than") and prefers:
            return True
        if self.replies(i) or not self.has(i, "negation_before"):
            return False
        return not self.has(i, "negation_after") or self.ahead(i)

    def stands_before(self, i: int, is_cue: Callable[[int], bool], stops: Callable[[int], bool]) -> bool:
        """Whether a cue stands at or before word i, with no stop behind it."""
        for j in range(i, -1, -1):
            if is_cue(j):
                return True
            if stops(j):
                return False
        return False

    def denies_behind(self, i: int) -> bool:
        if self.replies(i):
            return True
        return self.has(i, "negation_after") and not (self.has(i, "negation_before") and self.ahead(i))

    def hedges_ahead(self, i: int) -> bool:
        hedges = self.has(i, "hedge_before") and (not self.has(i, "hedge_after") or self.ahead(i))
        return hedges or bool(self.words[i].gap & DOUBT)

    def hedges_behind(self, i: int) -> bool:
        ahead = self.has(i, "hedge_before") and self.ahead(i) and not self.has(i, "conjunction")
        return self.has(i, "hedge_after") and not ahead


def select_matches(automaton: Automaton, words: list[Word]) -> Text:
    records, starts = [], []
    covered = [False] * len(words)
    for _ in range(2):
        covered = [_covered(automaton, words, i, covered) for i in range(len(words))]
    for i, word in enumerate(words):
        record = automaton.records[word.state]
        starts.append(word.content - int(automaton.depth[word.state]) + 1)
        if record is None or (not word.passed and _covered(automaton, words, i, covered)):
            record = _NOTHING
        records.append(record)
    text = Text(words, records, starts, [], [])
    for i, word in enumerate(words):
        text.breaks.append(word.boundary or bool(word.gap & SEMICOLON) or text.has(i, "terminator"))
        text.modes.append(_mode(text, i))
    return text


def _mode(text: Text, i: int) -> tuple[int, bool]:
    """The mode at word i, given that of the word before, and whether a comma followed since it began."""
    mode, comma = text.modes[-1] if i else (NEUTRAL, False)
    if text.breaks[i] and not (text.has(i, "continues") and not text.words[i].boundary):
        mode, comma = (SUPPOSES if _listed(text, i) else NEUTRAL), False
    comma = comma or bool(text.words[i].gap & COMMA)
    if text.has(i, "hypothetical"):
        lasting = text.has(i, "definition", "lasting")
        return (DEFINES if lasting else INTRODUCES if text.has(i, "introduction") else SUPPOSES), False
    if text.has(i, "assertion") and (mode != DEFINES or comma):
        return OBSERVES, comma
    return mode, comma


def _listed(text: Text, i: int) -> bool:
    """Whether word i begins a marked line below one that tells what an option lists ("Option A mentions:")."""
    led = False
    for j in range(i, -1, -1):
        if j < i and text.has(j, "hypothetical"):
            return led and text.has(j, "lists")
        bullet = text.words[j].boundary and bool(text.words[j].gap & BULLET)
        led = led or (bullet and bool(text.words[j].gap & COLON))
        if text.breaks[j] and not bullet and not (text.has(j, "continues") and not text.words[j].boundary):
            return False
    return False


def _covered(automaton: Automaton, words: list[Word], i: int, left_out: list[bool]) -> bool:
    """Whether a later match, of those that are not left out, begins at or before this one's last lexeme."""
    for j in range(i + 1, len(words)):
        later, depth = words[j], int(automaton.depth[words[j].state])
        if depth and not later.passed and not left_out[j] and later.content - depth + 1 <= words[i].content:
            return True
        if later.content > words[i].content + 16:  # longer than any phrase
            return False
    return False
