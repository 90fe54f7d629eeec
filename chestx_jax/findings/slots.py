"""Findings in fixed slots, and as a list."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from chestx_jax.findings.arrays import Array, ArrayOps, first_at_least
from chestx_jax.findings.words import Words

HYPOTHETICAL, HEDGED, ASSERTED = range(3)  # codes of `certainty`


class Finding(NamedTuple):
    """One finding of a text, in the codes of `Findings`."""

    concept: int  # index into the lexicon's concepts
    polarity: int
    certainty: int
    side: int = 0
    site: int = 0
    severity: int = 0
    change: int = 0
    film: int = 0
    step: int = 0
    first: int = 0
    last: int = 0


class Findings(NamedTuple):
    """What texts assert, in fixed slots (the same pytree for reports, reference steps and completions)."""

    concept: Int[Array, "B M"]
    polarity: Int[Array, "B M"]  # 1 present, 0 absent
    certainty: Int[Array, "B M"]  # 2 asserted, 1 hedged, 0 hypothetical or definitional (never scored)
    side: Int[Array, "B M"]  # 0 not stated, 1 left, 2 right, 3 both
    site: Int[Array, "B M"]  # 0 not stated, else the lexicon's site number
    severity: Int[Array, "B M"]  # index into SEVERITIES; 0 not stated
    change: Int[Array, "B M"]  # 0 not stated, 1 stable, 2 worsening, 3 improving
    film: Int[Array, "B M"]  # index into FILMS; 0 not stated
    step: Int[Array, "B M"]  # sentence number from 0
    first: Int[Array, "B M"]  # first token (of tokens) or byte (of text) of the mention
    last: Int[Array, "B M"]  # the last one, inclusive
    valid: Bool[Array, "B M"]
    overflow: Int[Array, " B"]  # number of findings beyond the last slot


class Claims(NamedTuple):
    """What a text says at each step where a mention ends."""

    number: Int[Array, "T B"]  # of the concept, from 1; 0: no mention ends here
    polarity: Int[Array, "T B"]
    certainty: Int[Array, "T B"]
    side: Int[Array, "T B"]
    site: Int[Array, "T B"]
    severity: Int[Array, "T B"]
    change: Int[Array, "T B"]
    film: Int[Array, "T B"]
    sentence: Int[Array, "T B"]  # number of the step's sentence, from 0
    start: Int[Array, "T B"]  # content number of the mention's first lexeme (`Words.content`)


def in_slots(ops: ArrayOps, words: Words, claims: Claims, counted: Bool[Array, "T B"], slots: int) -> Findings:
    """The first M = `slots` of the counted claims of each text."""
    xp = ops.xp
    count_TxB = ops.sum_so_far(counted.astype(np.int32))
    rank_MxB = xp.broadcast_to(xp.arange(1, slots + 1, dtype=np.int32)[:, None], (slots, count_TxB.shape[1]))
    step_MxB = first_at_least(ops, count_TxB, rank_MxB)
    count_B = count_TxB[-1]
    valid_MxB = rank_MxB <= count_B[None]
    # One gather for the small fields: bits are polarity, certainty, side, severity, change, film, site and concept.
    packed = claims.polarity | claims.certainty << 1 | claims.side << 3 | claims.severity << 5 | claims.change << 7
    packed = packed | claims.film << 9 | claims.site << 11 | claims.number << 17

    def pick(values_TxB: Array, step_MxB: Array = step_MxB) -> Array:
        return xp.where(valid_MxB, xp.take_along_axis(values_TxB, step_MxB, 0), 0)

    begin_MxB = first_at_least(ops, words.content, xp.take_along_axis(claims.start, step_MxB, 0))
    fields = pick(packed)
    return Findings(
        concept=xp.maximum((fields >> 17) - 1, 0).T, polarity=(fields & 1).T, certainty=((fields >> 1) & 3).T,
        side=((fields >> 3) & 3).T, site=((fields >> 11) & 63).T, severity=((fields >> 5) & 3).T,
        change=((fields >> 7) & 3).T, film=((fields >> 9) & 3).T, step=pick(claims.sentence).T,
        first=pick(words.first, begin_MxB).T, last=pick(words.last).T,
        valid=valid_MxB.T, overflow=xp.maximum(count_B - slots, 0),
    )  # fmt: skip


def in_lists(findings: Findings) -> list[list[Finding]]:
    """The valid findings of each row."""
    columns = np.stack([np.asarray(getattr(findings, name)) for name in Finding._fields], -1)
    counts = np.asarray(findings.valid).sum(1)
    return [[Finding(*of_slot) for of_slot in row[:n].tolist()] for row, n in zip(columns, counts, strict=True)]


def pad_findings(findings: Sequence[Sequence[Finding]], slots: int) -> Findings:
    """B lists of findings as numpy arrays int32[B, slots]; `overflow` counts those beyond the last slot."""
    columns = np.zeros((len(findings), slots, len(Finding._fields)), np.int32)
    for row, of_row in enumerate(findings):
        if of_row:
            columns[row, : len(of_row)] = of_row[:slots]
    count_B = np.asarray([len(of_row) for of_row in findings], np.int32)
    fields = {name: columns[..., index] for index, name in enumerate(Finding._fields)}
    valid_BxM = np.arange(slots) < count_B[:, None]
    return Findings(**fields, valid=valid_BxM, overflow=np.maximum(count_B - slots, 0))


def namespace(findings: Findings) -> Any:
    """numpy or `jax.numpy`."""
    return findings.concept.__array_namespace__()


def expand(findings: Findings, axis: int) -> Findings:
    """The fields [B, M] with an axis inserted: [B, M, 1] for axis 2, [B, 1, M] for axis 1."""
    index = (slice(None),) * axis + (None,)
    fields = {name: values[index] for name, values in findings._asdict().items() if name != "overflow"}
    return findings._replace(**fields)


def sides_overlap(one: Findings, other: Findings) -> Bool[Array, "..."]:
    """Whether two findings may be on the same side; an unsaid side matches any."""
    return (one.side == 0) | (other.side == 0) | ((one.side & other.side) != 0)
