"""The phrase automaton over lexemes: a trie with failure links (Aho and Corasick, 1975) and self-loops on fillers."""

from collections import deque
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Int16

from chestx_jax.lexicon.lexicon import Lexicon, Record


@dataclass(frozen=True, eq=False)
class Automaton:
    """Transition tables of the automaton.

    A filler that interrupts a phrase loops: the state stays, and what the filler means alone is read from `hit`.
    """

    next: Int16[np.ndarray, "states lexemes"]
    hit: Int16[np.ndarray, "states lexemes"]  # whose record counts after the word: the next state, or the filler's own
    loops: Bool[np.ndarray, "states lexemes"]  # the word is passed over
    records: tuple[Record | None, ...]  # of the phrase that ends in a state; None where none ends
    depth: Int16[np.ndarray, " states"]  # lexemes of the record's phrase


@cache
def build(lexicon: Lexicon) -> Automaton:
    """The automaton of a lexicon's phrases; built once a lexicon."""
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
    lexemes = max(lexicon.lexemes.values()) + 1
    next_state = np.zeros((len(children), lexemes), np.int16)
    for lexeme, child in children[0].items():
        next_state[0, lexeme] = child
    failure = [0] * len(children)
    queue = deque(children[0].values())
    while queue:
        state = queue.popleft()
        if records[state] is None:  # the longest phrase that ends here is that of the failure link
            records[state], depth[state] = records[failure[state]], depth[failure[state]]
        next_state[state] = next_state[failure[state]]
        for lexeme, child in children[state].items():
            failure[child] = int(next_state[state, lexeme])
            next_state[state, lexeme] = child
            queue.append(child)
    hit = next_state.copy()
    loops = np.zeros(next_state.shape, bool)
    for filler in lexicon.fillers:
        for state in range(len(children)):
            if filler in children[state] or depth[int(next_state[state, filler])] > 1:
                continue  # it goes on with the phrase, or ends one that began later ("which is large")
            if children[state] and state:  # in the middle of a phrase: the filler is passed over
                hit[state, filler], next_state[state, filler] = next_state[0, filler], state
                loops[state, filler] = True
            elif not next_state[state, filler]:
                loops[state, filler] = True
    return Automaton(next_state, hit, loops, tuple(records), np.asarray(depth, np.int16))
