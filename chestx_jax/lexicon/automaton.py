"""The phrase automaton over lexemes, as a trie with failure links (Aho and Corasick, 1975) and self-loops on fillers."""  # noqa: E501

from collections import deque
from dataclasses import dataclass
from functools import cache

import numpy as np

from chestx_jax.lexicon.lexicon import Lexicon, Record


@dataclass(frozen=True, eq=False)
class Automaton:
    """`next[state, lexeme]`; a word that interrupts a phrase (a filler) leaves the state where it is.

    `hit[state, lexeme]` is the state whose record and depth count after reading the word: the next state, or, for an
    interrupting filler, the state it alone leads to. `records[state]` is None where no phrase ends.
    """

    next: np.ndarray  # int16[states, lexemes]
    hit: np.ndarray  # int16[states, lexemes]
    loops: np.ndarray  # bool[states, lexemes]: the word was passed over
    records: tuple[Record | None, ...]
    depth: np.ndarray  # int16[states]: lexemes in the record's phrase


def build(lexicon: Lexicon) -> Automaton:
    """Compile the lexicon's phrases; cached by the lexicon's digest."""
    return _build(_Key(lexicon))


@dataclass(frozen=True)
class _Key:
    lexicon: Lexicon

    def __hash__(self) -> int:
        return hash(self.lexicon.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.lexicon.digest == other.lexicon.digest


@cache
def _build(key: _Key) -> Automaton:
    lexicon = key.lexicon
    children: list[dict[int, int]] = [{}]
    records: list[Record | None] = [None]
    depth = [0]
    for phrase, record in lexicon.phrases.items():
        state = 0
        for lexeme in phrase:
            if lexeme not in children[state]:
                children[state][lexeme] = len(children)
                children.append({})
                records.append(None)
                depth.append(0)
            state = children[state][lexeme]
        records[state], depth[state] = record, len(phrase)
    width = max(lexicon.lexemes.values()) + 1
    table = np.zeros((len(children), width), np.int16)
    for lexeme, child in children[0].items():
        table[0, lexeme] = child
    failure = [0] * len(children)
    queue = deque(children[0].values())
    while queue:
        state = queue.popleft()
        if records[state] is None:  # the longest phrase that ends here is a shorter one
            records[state], depth[state] = records[failure[state]], depth[failure[state]]
        table[state] = table[failure[state]]
        for lexeme, child in children[state].items():
            failure[child] = int(table[state, lexeme])
            table[state, lexeme] = child
            queue.append(child)
    hit = table.copy()
    loops = np.zeros(table.shape, bool)
    for filler in lexicon.fillers:
        for state in range(len(children)):
            if filler in children[state]:
                continue
            if children[state] and state:  # an unfinished phrase waits for its next word
                hit[state, filler], table[state, filler], loops[state, filler] = table[0, filler], state, True
            elif not table[state, filler]:
                loops[state, filler] = True
    return Automaton(table, hit, loops, tuple(records), np.asarray(depth, np.int16))
