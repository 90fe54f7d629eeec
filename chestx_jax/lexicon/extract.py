"""Findings of texts, on the host: for reports and reference steps in the input pipeline, for people, and for tests."""

from collections.abc import Sequence

import numpy as np

from chestx_jax.lexicon import automaton, scopes, tags
from chestx_jax.lexicon import words as words_
from chestx_jax.lexicon.lexicon import Lexicon
from chestx_jax.lexicon.scopes import Finding
from chestx_jax.types import Findings

FIELDS = ("concept", "polarity", "certainty", "side", "site", "change", "step", "first", "last")
_ANSWERS = (tags.ANSWER, tags.ANSWER_ALONE)


def extract(lexicon: Lexicon, text: str, *, think_only: bool = False) -> list[Finding]:
    """The findings of a text, in order; offsets count bytes of its UTF-8 form.

    `think_only`: read a well-formed think block alone (training). Otherwise a text with such a block is read the same
    way, and one without is read whole, less its answer block (judging).
    """
    return extract_bytes(lexicon, text.encode("utf-8", "surrogatepass"), think_only=think_only)


def extract_bytes(lexicon: Lexicon, data: bytes, *, think_only: bool = False) -> list[Finding]:
    """`extract` of bytes, which may begin or end in the middle of a character, as sampled tokens do."""
    machine = automaton.build(lexicon)
    words = words_.words(lexicon, machine, data)
    zones = {word.zone for word in words}
    thought = bool(zones & {tags.BETWEEN, tags.ANSWER, tags.AFTER})  # a think block was closed
    found = scopes.findings(lexicon, machine, words)
    zone = dict(zip((word.last for word in words), (word.zone for word in words), strict=True))
    if think_only or thought:
        return [finding for finding in found if zone[finding.last] == tags.THINK]
    return [finding for finding in found if zone[finding.last] not in _ANSWERS]


def findings(lexicon: Lexicon, texts: Sequence[str], slots: int) -> Findings:
    """The findings of each text (judged whole) in `slots` fixed slots; what finds no slot is counted in `overflow`."""
    return rows([extract(lexicon, text) for text in texts], slots)


def rows(found: Sequence[Sequence[Finding]], slots: int) -> Findings:
    """Lists of findings as numpy arrays [rows, slots], int32."""
    arrays = {name: np.zeros((len(found), slots), np.int32) for name in FIELDS}
    for row, items in enumerate(found):
        for slot, item in enumerate(items[:slots]):
            for name in FIELDS:
                arrays[name][row, slot] = getattr(item, name)
    count = np.asarray([len(items) for items in found], np.int32)
    valid = np.arange(slots) < count[:, None]
    return Findings(**arrays, valid=valid, overflow=np.maximum(count - slots, 0).astype(np.int32))
