"""Claims against evidence, in jit: the findings of a completion judged by those of a report or of reference steps.

Both are `Findings` in fixed slots, and every rule is a relation between all pairs of slots: B texts, M claims, R
findings of the evidence. Presence implies that of broader concepts (edema is an opacity), absence that of narrower ones
(no opacity, no edema); a finding denies the concepts that it rules out; a claim on another side than the evidence's is
no match.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from chestx_jax.findings import Findings
from chestx_jax.labels import LABELS
from chestx_jax.lexicon.tables import Relations

NO_FINDING = LABELS.index("No Finding")


@struct.dataclass
class Verdicts:
    """One verdict a claim; 0 and False in slots without a scored claim."""

    scored: Bool[Array, "B M"]  # see `is_scored`
    correct: Float[Array, "B M"]  # 1 right, 0.5 right but for the certainty, 0 wrong
    explicit: Bool[Array, "B M"]  # the evidence asserts it, rather than implies it by silence
    weight: Float[Array, "B M"]  # see `distinct_weight`


def is_scored(tables: Relations, findings: Findings) -> Bool[Array, "B M"]:
    """Slots with a finding that is asserted or hedged, and whose concept is not a catch-all."""
    asserted = jnp.asarray(findings.certainty) > 0
    return findings.valid & asserted & jnp.asarray(tables.counted)[findings.concept]


def verify(tables: Relations, claims: Findings, evidence: Findings) -> Verdicts:
    """Judge claims [B, M] by the evidence of the same rows [B, R].

    A present claim is right if the evidence asserts it on that side and with no other change; an absent one is right
    unless the evidence asserts it. "No finding" is right unless something is found. A right claim that is hedged where
    the evidence is not, or the other way round, is worth half.
    """
    claim, proof = _expand(claims, 2), _expand(evidence, 1)
    proof_scored = is_scored(tables, evidence)[:, None]
    narrower, broader, denies, denied = relate_concepts(tables, proof.concept, claim.concept)
    same_side = _sides_overlap(claim, proof)
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
    shown_sides = shown_left.astype(jnp.int32) | shown_right.astype(jnp.int32) << 1
    side_supported = shown_unsided | ((claims.side & ~shown_sides) == 0)
    shown = (shown_unsided | shown_left | shown_right) & side_supported & (~changed | changed_same)

    certainty_shown = shown_same_side.astype(jnp.int32) + surely_shown.astype(jnp.int32)
    certainty_ruled_out = ruled_out.astype(jnp.int32) + surely_ruled_out.astype(jnp.int32)
    is_present = claims.polarity == 1
    is_none = claims.concept == NO_FINDING
    present_right = jnp.where(is_none, ~other_finding & ~ruled_out, shown)
    absent_right = jnp.where(is_none, other_finding | ruled_out, ~shown_same_side | ruled_out)
    right = jnp.where(is_present, present_right, absent_right)
    certainty = jnp.where(is_present, certainty_shown, certainty_ruled_out)
    certainty = jnp.where(certainty == 0, 2, certainty)  # silence of the evidence is a certain absence
    credit = jnp.where(claims.certainty == certainty, 1.0, 0.5)
    scored = is_scored(tables, claims)
    explicit = jnp.where(is_present, shown, ruled_out)
    return Verdicts(
        scored=scored,
        correct=jnp.where(scored & right, credit, 0.0).astype(jnp.float32),
        explicit=scored & explicit,
        weight=distinct_weight(claims, scored),
    )


def _any_evidence(*masks_BxMxR: Array) -> tuple[Array, ...]:
    """`any` over the last axis of each mask, in one pass over the pairs."""
    bits = sum(mask.astype(jnp.int32) << bit for bit, mask in enumerate(masks_BxMxR))
    bits_BxM = jax.lax.reduce(bits, jnp.int32(0), jax.lax.bitwise_or, (2,))
    return tuple(((bits_BxM >> bit) & 1) == 1 for bit in range(len(masks_BxMxR)))


def relate_concepts(tables: Relations, a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """For all pairs: a is a kind of b, b is a kind of a, a denies b, b denies a; one gather for the four."""
    is_a, denies = jnp.asarray(tables.is_a), jnp.asarray(tables.denies)
    relations = (is_a, is_a.T, denies, denies.T)
    packed_CxC = jnp.stack([relation.astype(jnp.int32) << bit for bit, relation in enumerate(relations)]).sum(0)
    bits = packed_CxC.reshape(-1)[a * is_a.shape[0] + b]
    return tuple((bits >> bit) & 1 != 0 for bit in range(4))  # type: ignore[return-value]


def distinct_weight(findings: Findings, valid: Bool[Array, "B M"]) -> Float[Array, "B M"]:
    """1 / number of valid slots with the same concept and polarity, so that a sum counts each such pair once."""
    count = same_claim(findings, valid).sum(2)
    return jnp.where(valid, 1.0 / jnp.maximum(count, 1).astype(jnp.float32), 0.0)


def same_claim(findings: Findings, valid: Bool[Array, "B M"]) -> Bool[Array, "B M M"]:
    """Pairs of valid slots with the same concept and polarity."""
    one, two = _expand(findings, 2), _expand(findings, 1)
    return (one.concept == two.concept) & (one.polarity == two.polarity) & valid[:, None] & valid[:, :, None]


def is_stated(tables: Relations, targets: Findings, claims: Findings) -> Bool[Array, "B R"]:
    """Targets [B, R] that any of the claims [B, M] states; see `stated_by`."""
    return stated_by(tables, targets, claims).any(2)


def stated_by(tables: Relations, targets: Findings, claims: Findings) -> Bool[Array, "B R M"]:
    """Which targets [B, R] are stated by which claims [B, M].

    A present target by a presence of it or of a kind of it; an absent one by an absence of it or of a broader concept,
    or by a finding that rules it out; the side must not differ.
    """
    target, claim = _expand(targets, 2), _expand(claims, 1)
    claim_scored = is_scored(tables, claims)[:, None]
    same_side = _sides_overlap(claim, target)
    narrower, broader, denies, _ = relate_concepts(tables, claim.concept, target.concept)
    present = (claim.polarity == 1) & narrower
    absent = ((claim.polarity == 0) & broader) | ((claim.polarity == 1) & denies)
    matches = jnp.where(target.polarity == 1, present, absent)
    return is_scored(tables, targets)[:, :, None] & claim_scored & same_side & matches


def is_related(tables: Relations, findings: Findings) -> Bool[Array, "B M M"]:
    """Pairs of slots of which one's concept is a kind of the other's."""
    one, two = _expand(findings, 2), _expand(findings, 1)
    narrower, broader, _, _ = relate_concepts(tables, one.concept, two.concept)
    return (narrower | broader) & one.valid & two.valid


def contradictions(tables: Relations, claims: Findings, within_step: Bool[Array, " B"]) -> Bool[Array, "B M M"]:
    """Pairs of a text's claims that deny each other; only of the same step where `within_step` (two films)."""
    one, two = _expand(claims, 2), _expand(claims, 1)
    scored = is_scored(tables, claims)
    narrower, _, _, denied = relate_concepts(tables, one.concept, two.concept)
    contradicts = (one.polarity == 1) & (two.polarity == 0) & narrower
    contradicts = contradicts | ((one.polarity == 1) & (two.polarity == 1) & denied)
    contradicts = contradicts & _sides_overlap(one, two)
    contradicts = contradicts & scored[:, None] & scored[:, :, None]
    contradicts = contradicts & ((one.step == two.step) | ~within_step[:, None, None])
    return contradicts | contradicts.swapaxes(1, 2)


def is_inferred(tables: Relations, claims: Findings, evidence: Findings, verdicts: Verdicts) -> Bool[Array, "B M"]:
    """Right claims [B, M] that the evidence [B, R] does not make itself and that a reader may doubt.

    A presence of which the evidence shows only a kind ("an opacity", of a nodule); and a denial, "no finding" among
    them, where the evidence shows something in the denied region ("no fibrosis", beside a granuloma).
    """
    claim, proof = _expand(claims, 2), _expand(evidence, 1)
    proof_scored, region = is_scored(tables, evidence)[:, None], jnp.asarray(tables.region)
    same = proof_scored & (claim.concept == proof.concept) & (claim.polarity == proof.polarity)
    near = (region[claim.concept] == region[proof.concept]) | (claim.concept == NO_FINDING)
    shows_near = proof_scored & near & (proof.polarity == 1) & (proof.concept != NO_FINDING)
    explicit, shown_near = _any_evidence(same, shows_near)
    is_none = claims.concept == NO_FINDING
    denial = (claims.polarity == 0) != is_none
    return (verdicts.correct > 0) & ~explicit & jnp.where(denial, shown_near, ~is_none)


def _sides_overlap(one: Findings, two: Findings) -> Array:
    """Whether two findings may be on the same side; an unsaid side matches any."""
    return (one.side == 0) | (two.side == 0) | ((one.side & two.side) != 0)


def _expand(findings: Findings, axis: int) -> Findings:
    """The fields with an axis inserted, for relations between slots."""
    fields = {
        name: jnp.expand_dims(jnp.asarray(values), axis)
        for name, values in findings._asdict().items()
        if name != "overflow"
    }
    return Findings(**fields, overflow=findings.overflow)
