"""Claims against evidence: the findings of a completion judged by those of a report or of reference steps.

Both are `Findings` in fixed slots, and every rule is a relation between all pairs of slots: B texts, M claims, R
findings of the evidence. Presence implies that of broader concepts (edema is an opacity), absence that of narrower ones
(no opacity, no edema); a finding denies the concepts that it rules out; a claim on another side than the evidence's is
no match. Written over the array namespace of its arguments: numpy on the host, `jax.numpy` in jit.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from chestx_jax.findings import Findings
from chestx_jax.findings.arrays import Array
from chestx_jax.findings.slots import expand, namespace, sides_overlap
from chestx_jax.labels import LABELS
from chestx_jax.lexicon.tables import Relations

NO_FINDING = LABELS.index("No Finding")


class Verdicts(NamedTuple):
    """One verdict a claim; 0 and False in slots without a scored claim."""

    scored: Bool[Array, "B M"]  # see `is_scored`
    correct: Float[Array, "B M"]  # 1 right, 0.5 right but for the certainty, 0 wrong
    explicit: Bool[Array, "B M"]  # the evidence asserts it, rather than implies it by silence
    weight: Float[Array, "B M"]  # see `distinct_weight`


def is_scored(tables: Relations, findings: Findings) -> Bool[Array, "B M"]:
    """Slots with a finding that is asserted or hedged, and whose concept is not a catch-all."""
    asserted = findings.certainty > 0
    return findings.valid & asserted & namespace(findings).asarray(tables.counted)[findings.concept]


def verify(tables: Relations, claims: Findings, evidence: Findings) -> Verdicts:
    """Judge claims [B, M] by the evidence of the same rows [B, R].

    A present claim is right if the evidence asserts it on that side and with no other change; an absent one is right
    unless the evidence asserts it. "No finding" is right unless something is found. A right claim that is hedged where
    the evidence is not, or the other way round, is worth half.
    """
    xp = namespace(claims)
    claim, proof = expand(claims, 2), expand(evidence, 1)
    proof_scored = is_scored(tables, evidence)[:, None]
    narrower, broader, denies, denied = relate_concepts(tables, proof.concept, claim.concept)
    same_side = sides_overlap(claim, proof)
    present, certain = proof.polarity == 1, proof.certainty == 2
    shows = proof_scored & present & narrower
    rules_out = proof_scored & same_side & ((~present & broader) | (present & denies))
    changes = shows & same_side & (proof.change > 0) & (claim.change > 0)
    (other_finding, shown_unsided, shown_left, shown_right, changed, changed_same, shown_same_side, ruled_out,
     surely_shown, surely_ruled_out) = _any_evidence(
        proof_scored & present & denied, shows & (proof.side == 0), shows & ((proof.side & 1) != 0),
        shows & ((proof.side & 2) != 0), changes, changes & (proof.change == claim.change), shows & same_side,
        rules_out, shows & same_side & certain, rules_out & certain,
    )  # fmt: skip
    shown_sides = shown_left.astype(np.int32) | shown_right.astype(np.int32) << 1
    side_supported = shown_unsided | ((claims.side & ~shown_sides) == 0)
    shown = (shown_unsided | shown_left | shown_right) & side_supported & (~changed | changed_same)

    certainty_shown = shown_same_side.astype(np.int32) + surely_shown.astype(np.int32)
    certainty_ruled_out = ruled_out.astype(np.int32) + surely_ruled_out.astype(np.int32)
    is_present = claims.polarity == 1
    is_none = claims.concept == NO_FINDING
    present_right = xp.where(is_none, ~other_finding & ~ruled_out, shown)
    absent_right = xp.where(is_none, other_finding | ruled_out, ~shown_same_side | ruled_out)
    right = xp.where(is_present, present_right, absent_right)
    certainty = xp.where(is_present, certainty_shown, certainty_ruled_out)
    certainty = xp.where(certainty == 0, 2, certainty)  # silence of the evidence is a certain absence
    credit = xp.where(claims.certainty == certainty, 1.0, 0.5)
    scored = is_scored(tables, claims)
    explicit = xp.where(is_present, shown, ruled_out)
    return Verdicts(
        scored=scored,
        correct=xp.where(scored & right, credit, 0.0).astype(np.float32),
        explicit=scored & explicit,
        weight=distinct_weight(claims, scored),
    )


def _any_evidence(*masks_BxMxR: Array) -> tuple[Array, ...]:
    """`any` over the last axis of each mask, in one pass over the pairs."""
    bits = sum(mask.astype(np.int32) << bit for bit, mask in enumerate(masks_BxMxR))
    bits_BxM = bits.__array_namespace__().bitwise_or.reduce(bits, axis=2)
    return tuple(((bits_BxM >> bit) & 1) == 1 for bit in range(len(masks_BxMxR)))


def relate_concepts(tables: Relations, a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """For all pairs: a is a kind of b, b is a kind of a, a denies b, b denies a; one gather for the four."""
    xp = a.__array_namespace__()
    is_a, denies = xp.asarray(tables.is_a), xp.asarray(tables.denies)
    relations = (is_a, is_a.T, denies, denies.T)
    packed_CxC = xp.stack([relation.astype(np.int32) << bit for bit, relation in enumerate(relations)]).sum(0)
    bits = packed_CxC.reshape(-1)[a * is_a.shape[0] + b]
    return tuple((bits >> bit) & 1 != 0 for bit in range(4))  # type: ignore[return-value]


def distinct_weight(findings: Findings, valid: Bool[Array, "B M"]) -> Float[Array, "B M"]:
    """1 / number of valid slots with the same concept and polarity, so that a sum counts each such pair once."""
    xp = namespace(findings)
    count = xp.maximum(same_claim(findings, valid).sum(2), 1).astype(np.float32)
    return xp.where(valid, 1 / count, xp.float32(0))


def same_claim(findings: Findings, valid: Bool[Array, "B M"]) -> Bool[Array, "B M M"]:
    """Pairs of valid slots with the same concept and polarity."""
    one, two = expand(findings, 2), expand(findings, 1)
    return (one.concept == two.concept) & (one.polarity == two.polarity) & valid[:, None] & valid[:, :, None]


def is_stated(tables: Relations, targets: Findings, claims: Findings) -> Bool[Array, "B R"]:
    """Targets [B, R] that any of the claims [B, M] states; see `stated_by`."""
    return stated_by(tables, targets, claims).any(2)


def stated_by(tables: Relations, targets: Findings, claims: Findings) -> Bool[Array, "B R M"]:
    """Which targets [B, R] are stated by which claims [B, M].

    A present target by a presence of it or of a kind of it; an absent one by an absence of it or of a broader concept,
    or by a finding that rules it out; the side must not differ.
    """
    target, claim = expand(targets, 2), expand(claims, 1)
    claim_scored = is_scored(tables, claims)[:, None]
    same_side = sides_overlap(claim, target)
    narrower, broader, denies, _ = relate_concepts(tables, claim.concept, target.concept)
    present = (claim.polarity == 1) & narrower
    absent = ((claim.polarity == 0) & broader) | ((claim.polarity == 1) & denies)
    matches = namespace(targets).where(target.polarity == 1, present, absent)
    return is_scored(tables, targets)[:, :, None] & claim_scored & same_side & matches


def is_related(tables: Relations, findings: Findings) -> Bool[Array, "B M M"]:
    """Pairs of slots of which one's concept is a kind of the other's."""
    one, two = expand(findings, 2), expand(findings, 1)
    narrower, broader, _, _ = relate_concepts(tables, one.concept, two.concept)
    return (narrower | broader) & one.valid & two.valid


def is_inferred(tables: Relations, claims: Findings, evidence: Findings, verdicts: Verdicts) -> Bool[Array, "B M"]:
    """Right claims [B, M] that the evidence [B, R] does not make itself and that a reader may doubt.

    A presence of which the evidence shows only a kind ("an opacity", of a nodule); and a denial, "no finding" among
    them, where the evidence shows something in the denied region ("no fibrosis", beside a granuloma).
    """
    claim, proof = expand(claims, 2), expand(evidence, 1)
    proof_scored, region = is_scored(tables, evidence)[:, None], namespace(claims).asarray(tables.region)
    same = proof_scored & (claim.concept == proof.concept) & (claim.polarity == proof.polarity)
    near = (region[claim.concept] == region[proof.concept]) | (claim.concept == NO_FINDING)
    shows_near = proof_scored & near & (proof.polarity == 1) & (proof.concept != NO_FINDING)
    explicit, shown_near = _any_evidence(same, shows_near)
    is_none = claims.concept == NO_FINDING
    denial = (claims.polarity == 0) != is_none
    return (verdicts.correct > 0) & ~explicit & namespace(claims).where(denial, shown_near, ~is_none)
