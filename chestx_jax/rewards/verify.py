"""Claims against evidence, in jit: what a completion asserts, judged by what a report or reference asserts.

Both sides are `Findings` in fixed slots; every rule is a relation between all pairs of slots. Presence passes up the
is-a graph (edema is an opacity), absence passes down (no opacity, no edema), a finding that rules others out denies
them, and a side that the evidence does not bear out is no match.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from chestx_jax.lexicon.token_tables import Relations
from chestx_jax.types import LABELS, Findings

NO_FINDING = LABELS.index("No Finding")


@struct.dataclass
class Verdicts:
    """One verdict a claim; 0 and False in slots that hold no scored claim."""

    scored: Bool[Array, "B M"]  # asserted or hedged, and no catch-all
    correct: Float[Array, "B M"]
    explicit: Bool[Array, "B M"]  # the evidence says the same in words
    weight: Float[Array, "B M"]  # 1 / number of claims with the same concept and polarity


def scored(tables: Relations, findings: Findings) -> Bool[Array, "B M"]:
    """Slots that assert something: not hypothetical, not a catch-all."""
    asserted = jnp.asarray(findings.certainty) > 0
    return findings.valid & asserted & jnp.asarray(tables.counted)[findings.concept]


def verify(tables: Relations, claims: Findings, evidence: Findings) -> Verdicts:
    """Judge claims [B, M] by the evidence of the same rows [B, R].

    A present claim is right if the evidence asserts it on that side and with no other change; an absent one unless the
    evidence asserts it. Where one side hedges and the other does not, half is granted. "No finding" is right unless
    something is found.
    """
    claim, proof = _pairs(claims, 2), _pairs(evidence, 1)
    counts = scored(tables, evidence)[:, None]
    below, above, denies, denied = relate(tables, proof.concept, claim.concept)
    same_side = (claim.side == 0) | (proof.side == 0) | ((claim.side & proof.side) != 0)
    present, certain = proof.polarity == 1, proof.certainty == 2
    shows = counts & present & below
    clears = counts & same_side & ((~present & above) | (present & denies))
    moved = shows & same_side & (proof.change > 0) & (claim.change > 0)
    rival, unsided, left, right, moves, moves_alike, contradicted, cleared, surely_shown, surely_cleared = _anywhere(
        counts & present & denied, shows & (proof.side == 0), shows & ((proof.side & 1) != 0),
        shows & ((proof.side & 2) != 0), moved, moved & (proof.change == claim.change), shows & same_side, clears,
        shows & same_side & certain, clears & certain,
    )  # fmt: skip
    sides = left.astype(jnp.int32) | right.astype(jnp.int32) << 1
    side_holds = unsided | ((claims.side & ~sides) == 0)
    shown = (unsided | left | right) & side_holds & (~moves | moves_alike)

    certainty_shown = contradicted.astype(jnp.int32) + surely_shown.astype(jnp.int32)
    certainty_cleared = cleared.astype(jnp.int32) + surely_cleared.astype(jnp.int32)
    is_present = claims.polarity == 1
    is_none = claims.concept == NO_FINDING
    right_present = jnp.where(is_none, ~rival & ~cleared, shown)
    right_absent = jnp.where(is_none, rival | cleared, ~contradicted | cleared)
    right_claim = jnp.where(is_present, right_present, right_absent)
    stated = jnp.where(is_present, certainty_shown, certainty_cleared)
    stated = jnp.where(stated == 0, 2, stated)  # silence counts as plain normality
    half = jnp.where(claims.certainty == stated, 1.0, 0.5)
    valid = scored(tables, claims)
    explicit = jnp.where(is_present, shown, cleared)
    return Verdicts(
        scored=valid,
        correct=jnp.where(valid & right_claim, half, 0.0).astype(jnp.float32),
        explicit=valid & explicit,
        weight=share(claims, valid),
    )


def _anywhere(*masks: Array) -> tuple[Array, ...]:
    """`any` over the last axis of each mask [B, M, R], in one pass over the pairs."""
    bits = sum(mask.astype(jnp.int32) << place for place, mask in enumerate(masks))
    found = jax.lax.reduce(bits, jnp.int32(0), jax.lax.bitwise_or, (2,))
    return tuple(((found >> place) & 1) == 1 for place in range(len(masks)))


def relate(tables: Relations, a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """For all pairs: a is a kind of b, b is a kind of a, a denies b, b denies a; one gather for the four."""
    is_a, denies = jnp.asarray(tables.is_a), jnp.asarray(tables.denies)
    relations = (is_a, is_a.T, denies, denies.T)
    packed = jnp.stack([relation.astype(jnp.int32) << bit for bit, relation in enumerate(relations)]).sum(0)
    found = packed.reshape(-1)[a * is_a.shape[0] + b]
    return tuple((found >> bit) & 1 != 0 for bit in range(4))  # type: ignore[return-value]


def share(findings: Findings, valid: Bool[Array, "B M"]) -> Float[Array, "B M"]:
    """1 / number of valid slots with the same concept and polarity, so that each counts once in a sum."""
    count = alike(findings, valid).sum(2)
    return jnp.where(valid, 1.0 / jnp.maximum(count, 1).astype(jnp.float32), 0.0)


def alike(findings: Findings, valid: Bool[Array, "B M"]) -> Bool[Array, "B M M"]:
    """Which pairs of valid slots hold the same concept with the same polarity."""
    one, two = _pairs(findings, 2), _pairs(findings, 1)
    return (one.concept == two.concept) & (one.polarity == two.polarity) & valid[:, None] & valid[:, :, None]


def stated(tables: Relations, wanted: Findings, claims: Findings) -> Bool[Array, "B R"]:
    """Which wanted findings [B, R] any of the claims [B, M] states."""
    return states(tables, wanted, claims).any(2)


def states(tables: Relations, wanted: Findings, claims: Findings) -> Bool[Array, "B R M"]:
    """Which claims state which wanted findings with the same polarity (a broader denial states them too)."""
    want, claim = _pairs(wanted, 2), _pairs(claims, 1)
    counts = scored(tables, claims)[:, None]
    same_side = (claim.side == 0) | (want.side == 0) | ((claim.side & want.side) != 0)
    below, above, denies, _ = relate(tables, claim.concept, want.concept)
    present = (claim.polarity == 1) & below
    absent = ((claim.polarity == 0) & above) | ((claim.polarity == 1) & denies)
    matches = jnp.where(want.polarity == 1, present, absent)
    return scored(tables, wanted)[:, :, None] & counts & same_side & matches


def related(tables: Relations, findings: Findings) -> Bool[Array, "B M M"]:
    """Which pairs of slots hold concepts of which one is a kind of the other."""
    one, two = _pairs(findings, 2), _pairs(findings, 1)
    below, above, _, _ = relate(tables, one.concept, two.concept)
    return (below | above) & one.valid & two.valid


def clashes(tables: Relations, claims: Findings, within_step: Bool[Array, " B"]) -> Bool[Array, "B M M"]:
    """Pairs of claims of a text that deny each other; only of the same step where `within_step` (two films)."""
    one, two = _pairs(claims, 2), _pairs(claims, 1)
    valid = scored(tables, claims)
    below, _, _, denied = relate(tables, one.concept, two.concept)
    clash = (one.polarity == 1) & (two.polarity == 0) & below
    clash = clash | ((one.polarity == 1) & (two.polarity == 1) & denied)
    clash = clash & ((one.side == 0) | (two.side == 0) | ((one.side & two.side) != 0))
    clash = clash & valid[:, None] & valid[:, :, None] & ((one.step == two.step) | ~within_step[:, None, None])
    return clash | clash.swapaxes(1, 2)


def inferred(tables: Relations, claims: Findings, evidence: Findings, verdicts: Verdicts) -> Bool[Array, "B M"]:
    """Right claims [B, M] that the evidence [B, R] does not make itself: a reader infers them, and may not.

    A presence of which the evidence shows only a kind ("an opacity", of a nodule); and a denial, "no finding" among
    them, where the evidence shows something in the region denied ("no fibrosis", beside a granuloma).
    """
    claim, proof = _pairs(claims, 2), _pairs(evidence, 1)
    counts, region = scored(tables, evidence)[:, None], jnp.asarray(tables.region)
    same = counts & (claim.concept == proof.concept) & (claim.polarity == proof.polarity)
    near = (region[claim.concept] == region[proof.concept]) | (claim.concept == NO_FINDING)
    shows = counts & near & (proof.polarity == 1) & (proof.concept != NO_FINDING)
    named, troubled = _anywhere(same, shows)
    is_none = claims.concept == NO_FINDING
    denial = (claims.polarity == 0) != is_none
    return (verdicts.correct > 0) & ~named & jnp.where(denial, troubled, ~is_none)


def _pairs(findings: Findings, axis: int) -> Findings:
    """The fields with an axis inserted, for relations between slots."""
    overflow = findings.overflow
    expanded = {
        name: jnp.expand_dims(jnp.asarray(getattr(findings, name)), axis)
        for name in ("concept", "polarity", "certainty", "side", "site", "change", "step", "first", "last", "valid")
    }
    return Findings(**expanded, overflow=overflow)
