"""Findings of texts, on the host: for reports and reference steps in the input pipeline, for people, and for tests."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from chestx_jax.findings.arrays import NUMPY
from chestx_jax.findings.rules.claims import read_claims
from chestx_jax.findings.rules.matches import select_matches
from chestx_jax.findings.sections import asserting_text
from chestx_jax.findings.slots import HYPOTHETICAL, Finding, Findings, in_lists, in_slots, pad_findings
from chestx_jax.findings.text_words import read_words
from chestx_jax.findings.words import counted_steps
from chestx_jax.lexicon.lexicon import FILMS, Lexicon
from chestx_jax.lexicon.tables import meanings

_BLOCK = 64  # texts read at once


class Reading(NamedTuple):
    """The findings of a text, and how many sentences and words it has, tags aside."""

    findings: list[Finding]
    sentences: int
    words: int


def extract(lexicon: Lexicon, text: str, *, think_only: bool = False) -> list[Finding]:
    """The findings of a text, in order; offsets count bytes of its UTF-8 form.

    `think_only` (training): findings of a closed think block alone. Otherwise (judging) a text with such a block is
    read the same way, and any other text is read whole, less its answer block.
    """
    return read_texts(lexicon, [text], think_only=think_only)[0].findings


def extract_batch(lexicon: Lexicon, texts: Sequence[str], slots: int) -> Findings:
    """The findings of B texts, judged whole, as numpy arrays int32[B, slots]; `overflow` counts those beyond."""
    return pad_findings([reading.findings for reading in read_texts(lexicon, texts)], slots)


def read_reports(lexicon: Lexicon, reports: Sequence[str]) -> list[Reading]:
    """`read_texts` of reports: what is told of an earlier film, or in a section like history, asserts nothing."""
    return [
        reading._replace(findings=[_of_this_film(finding) for finding in reading.findings])
        for reading in read_texts(lexicon, [asserting_text(report) for report in reports])
    ]


def _of_this_film(finding: Finding) -> Finding:
    return finding._replace(certainty=HYPOTHETICAL) if finding.film == FILMS.index("earlier") else finding


def read_texts(lexicon: Lexicon, texts: Sequence[str], *, think_only: bool = False) -> list[Reading]:
    """`extract` of many texts, which is faster than one by one, with the counts of their sentences and words."""
    return read_bytes(lexicon, [text.encode("utf-8", "surrogatepass") for text in texts], think_only=think_only)


def read_bytes(lexicon: Lexicon, texts: Sequence[bytes], *, think_only: bool = False) -> list[Reading]:
    """`read_texts` of bytes, which may begin or end in the middle of a character, as sampled tokens do."""
    shortest_first = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # little padding in a block
    readings: dict[int, Reading] = {}
    for start in range(0, len(texts), _BLOCK):
        block = shortest_first[start : start + _BLOCK]
        readings.update(zip(block, _read_block(lexicon, [texts[i] for i in block], think_only), strict=True))
    return [readings[index] for index in range(len(texts))]


def _read_block(lexicon: Lexicon, texts: Sequence[bytes], think_only: bool) -> list[Reading]:
    words = read_words(lexicon, texts)
    tables = meanings(lexicon)
    claims = read_claims(NUMPY, tables, words, select_matches(NUMPY, tables, words))
    counted = (claims.number > 0) & counted_steps(words, think_only)
    findings = in_slots(NUMPY, words, claims, counted, int(counted.sum(0).max()))
    closing = words.word.sum(0) - 1  # the step of the closing word
    sentences = words.boundary.sum(0) - np.take_along_axis(words.boundary, closing[None], 0)[0]
    return list(map(Reading, in_lists(findings), sentences.tolist(), closing.tolist()))
