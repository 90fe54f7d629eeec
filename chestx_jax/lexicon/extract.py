"""Findings of texts, on the host: for reports and reference steps in the input pipeline, for people, and for tests."""

from collections.abc import Sequence

import numpy as np

from chestx_jax.lexicon import automaton, scopes, tags
from chestx_jax.lexicon.lexicon import Lexicon
from chestx_jax.lexicon.scopes import Finding
from chestx_jax.lexicon.words import read_words
from chestx_jax.types import Findings

FIELDS = ("concept", "polarity", "certainty", "side", "site", "change", "step", "first", "last")
_ANSWER_ZONES = (tags.ANSWER, tags.ANSWER_ALONE)


def extract(lexicon: Lexicon, text: str, *, think_only: bool = False) -> list[Finding]:
    """The findings of a text, in order; offsets count bytes of its UTF-8 form.

    `think_only` (training): findings of a closed think block alone. Otherwise (judging) a text with such a block is
    read the same way, and any other text is read whole, less its answer block.
    """
    return extract_bytes(lexicon, text.encode("utf-8", "surrogatepass"), think_only=think_only)


def extract_bytes(lexicon: Lexicon, data: bytes, *, think_only: bool = False) -> list[Finding]:
    """`extract` of bytes, which may begin or end in the middle of a character, as sampled tokens do."""
    machine = automaton.build(lexicon)
    words = read_words(lexicon, machine, data)
    think_closed = any(word.zone in (tags.BETWEEN, tags.ANSWER, tags.AFTER) for word in words)
    findings = scopes.read_findings(lexicon, machine, words)
    zone_at = {word.last: word.zone for word in words}
    if think_only or think_closed:
        return [finding for finding in findings if zone_at[finding.last] == tags.THINK]
    return [finding for finding in findings if zone_at[finding.last] not in _ANSWER_ZONES]


def extract_batch(lexicon: Lexicon, texts: Sequence[str], slots: int) -> Findings:
    """The findings of B texts, judged whole, as numpy arrays int32[B, slots]; see `pad_findings`."""
    return pad_findings([extract(lexicon, text) for text in texts], slots)


def pad_findings(findings: Sequence[Sequence[Finding]], slots: int) -> Findings:
    """B lists of findings in fixed slots, int32[B, slots]; `overflow` counts those beyond the last slot."""
    arrays = {name: np.zeros((len(findings), slots), np.int32) for name in FIELDS}
    for row, of_row in enumerate(findings):
        for slot, finding in enumerate(of_row[:slots]):
            for name in FIELDS:
                arrays[name][row, slot] = getattr(finding, name)
    count_B = np.asarray([len(of_row) for of_row in findings], np.int32)
    valid_BxM = np.arange(slots) < count_B[:, None]
    return Findings(**arrays, valid=valid_BxM, overflow=np.maximum(count_B - slots, 0).astype(np.int32))
