"""What each claim of a reasoning is worth against a report: additive, and nothing without looking at the film.

The sum of the claims' values is the `gain` of a text over silence; `process` shifts it so that an honest, complete
reading of the film has 1. A finding of the report is earned once, by the best claim for it; a claim of something that
is not there costs what makes it worth 0 on average over the questions of its kind (`priors`); a denial earns and costs
by how often what it denies is there; a claim that the same text denies earns nothing. So whatever can be said without
the film is worth at most 0 on average.

    gain    = (Σ_r worth_r · best_r − Σ_false price_c · h ± Σ denials − repeats) / Z
    process = clip(gain + 1 − (V + Z_asked) / Z, −1, 1),    V = Σ_r worth_r,  Z = V + Z_asked + floor

with worth_r = (1 − τ_c) · w_c of the report's findings, τ_c = max(τ, p_c), w_c the concept's clinical weight, and
Z_asked = Σ (1 − τ_c) · w_c · p_c / (1 − p_c) over the asked concepts that the report does not show.

Written over the array namespace of its arguments: numpy on the host, `jax.numpy` in jit.
Shapes: B texts, M claims, R findings of the report, C concepts.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from chestx_jax.config import bounded
from chestx_jax.findings.arrays import Array
from chestx_jax.findings.slots import ASSERTED, Findings, expand, namespace, sides_overlap
from chestx_jax.findings.targets import RewardTargets, Stakes
from chestx_jax.lexicon.lexicon import CURRENT
from chestx_jax.lexicon.tables import Relations

# Share of a finding that a claim earns whose attribute differs from it; chosen with the ratings of radiologists
# (docs/process-reward.md). What only one of them says is no error, but for the side.
WRONG_SIDE, ONE_OF_TWO_SIDES, UNSAID_SIDE = 0.25, 0.85, 0.9
OTHER_SITE, OTHER_CHANGE, NEXT_SEVERITY, FAR_SEVERITY = 0.8, 0.8, 0.88, 0.7
MILD, SEVERE = 0.8, 1.2  # factors of a concept's weight


@dataclass(frozen=True)
class ValueConfig:
    """Constants of the value of claims."""

    tau: float = bounded(0.2, min=0.0, max=0.9)  # share of right claims at which claiming begins to pay, at the least
    price: float = bounded(0.25, min=0.0)  # what a false claim costs of its concept's weight, at the least
    floor: float = bounded(0.2, above=0.0)  # the part of Z that does not depend on the film
    hedge: float = bounded(0.75, above=0.0, max=1.0)  # what a hedged claim earns and costs of an asserted one
    repeat: float = bounded(0.01, min=0.0)  # cost of an exact repeat
    unasked: float = bounded(0.1, min=0.0)  # weight of denials of what is not asked for


class Worth(NamedTuple):
    """What there is to earn from B reports."""

    positive: Bool[Array, "B R"]  # the findings that claims can earn
    worth: Float[Array, "B R"]
    shown: Bool[Array, "B C"]  # the report shows the concept or a kind of it
    kept: Float[Array, "B C"]  # (1 − τ_c) · w_c
    to_show: Float[Array, " B"]  # V
    to_deny: Float[Array, " B"]  # Z_asked
    total: Float[Array, " B"]  # Z


class Values(NamedTuple):
    """The values of the claims of B texts."""

    value: Float[Array, "B M"]  # sum to the gain
    gain: Float[Array, " B"]
    process: Float[Array, " B"]
    earned: Float[Array, "B R"]  # share of each finding that is earned
    supported: Bool[Array, "B M"]  # claims of presence that a finding of the report supports
    false: Bool[Array, "B M"]  # claims of presence that none does, and denials of what is shown
    refuted: Bool[Array, "B M"]  # claims of presence that the text itself denies


def values_of(config: ValueConfig, relations: Relations, claims: Findings, targets: RewardTargets) -> Values:
    """The values of claims [N, M], a text for each of the targets' N prompts."""
    claims = on_current_film(claims, targets.two_films)
    worth = report_worth(config, relations, targets.report, targets.stakes)
    return claim_values(config, relations, claims, targets.report, targets.stakes, worth)


def on_current_film(claims: Findings, two_films_B: Bool[Array, " B"]) -> Findings:
    """The claims, those that name no film on the current one where there are two."""
    unsaid = (claims.film == 0) & two_films_B[:, None]
    return claims._replace(film=namespace(claims).where(unsaid, CURRENT, claims.film))


class _Joined(NamedTuple):
    """Claims joined with the earlier ones of the same concept, polarity and film, those that the text denies apart."""

    side: Int[Array, "B M"]  # all sides said so far
    certainty: Int[Array, "B M"]  # the highest so far
    previous: Int[Array, "B M"]  # slot of the one before; -1: this is the first
    last: Bool[Array, "B M"]  # no other follows
    repeat: Bool[Array, "B M"]  # the text said exactly this before


def report_worth(config: ValueConfig, relations: Relations, report: Findings, stakes: Stakes) -> Worth:
    """What can be earned from B reports of distinct findings (`findings.targets.distinct`).

    A finding that the report itself states more closely ("opacity, which is pneumonia") is worth nothing beside that.
    """
    xp = namespace(report)
    weight_C, is_a_CxC = xp.asarray(relations.weight), xp.asarray(relations.is_a)
    weight = weight_C[report.concept]
    positive = report.valid & (report.certainty > 0) & (report.polarity == 1) & (weight > 0)
    one, other = expand(report, 2), expand(report, 1)
    closer = is_a_CxC[other.concept, one.concept] & (one.concept != other.concept) & positive[:, None]
    closer = closer & (weight_C[other.concept] >= weight_C[one.concept])
    closer = (closer & sides_overlap(one, other) & (one.film == other.film)).any(2)
    severity = xp.asarray([1.0, MILD, 1.0, SEVERE], np.float32)[report.severity]
    kept_BxC = 1 - xp.maximum(stakes.prior, np.float32(config.tau))
    worth = xp.where(positive & ~closer, weight * severity * xp.take_along_axis(kept_BxC, report.concept, 1), 0.0)
    shown = (is_a_CxC[report.concept] & positive[..., None]).any(1)
    kept_BxC = kept_BxC * weight_C[None]
    to_show, to_deny = worth.sum(1), xp.where(stakes.asked & ~shown, kept_BxC * _odds(stakes.prior), 0.0).sum(1)
    return Worth(positive, worth, shown, kept_BxC, to_show, to_deny, to_show + to_deny + config.floor)


def claim_values(
    config: ValueConfig,
    relations: Relations,
    claims: Findings,
    report: Findings,
    stakes: Stakes,
    worth: Worth,
) -> Values:
    """The values of claims [B, M] against the reports [B, R] of the same rows."""
    xp = namespace(claims)
    weight_C, is_a_CxC, credit_CxC = (xp.asarray(x) for x in (relations.weight, relations.is_a, relations.credit))
    scored = claims.valid & (claims.certainty > 0) & (weight_C[claims.concept] > 0)
    present, absent = scored & (claims.polarity == 1), scored & (claims.polarity == 0)
    refuted = present & _denied_by_the_text(claims, absent)
    joined = _join(claims, scored, refuted, xp)
    claim = expand(claims._replace(side=joined.side, certainty=joined.certainty), 2)
    finding, positive = expand(report, 1), worth.positive[:, None]
    same_film = (claim.film == 0) | (finding.film == 0) | (claim.film == finding.film)

    # A finding is earned by the concept whose claims, joined, say it best; its claims share by what each adds.
    supports = xp.where(positive & same_film & present[..., None], credit_CxC[claim.concept, finding.concept], 0.0)
    credit = xp.where(refuted[..., None], 0.0, supports * _agreement(config, claim, finding, xp))
    final = xp.where(joined.last[..., None], credit, 0.0)
    best_concept = xp.take_along_axis(claims.concept, final.argmax(1), 1)
    earns = present[..., None] & (claims.concept[..., None] == best_concept[:, None])
    added = xp.where(earns, credit - _previous(credit, joined.previous, xp), 0.0)
    earned = (worth.worth[:, None] * added).sum(2)
    supported = (supports > 0).any(2)

    hedge = xp.where(joined.certainty == 1, config.hedge, 1.0).astype(np.float32)
    hedge = hedge - _previous(hedge[..., None], joined.previous, xp)[..., 0]
    price_BxC = xp.maximum(stakes.price, config.price * weight_C[None])
    cost = xp.where(supported, 0.0, xp.take_along_axis(price_BxC, claims.concept, 1) * hedge)

    shown = xp.take_along_axis(worth.shown, claims.concept, 1)
    contradicted = (
        positive & same_film & is_a_CxC[finding.concept, claim.concept] & sides_overlap(claim, finding)
    ).any(2)
    asked = xp.take_along_axis(stakes.asked, claims.concept, 1)
    share = xp.where(asked, 1.0, stakes.unasked[:, None]) * hedge * xp.take_along_axis(worth.kept, claims.concept, 1)
    odds = xp.take_along_axis(_odds(stakes.prior), claims.concept, 1)
    denied = share * xp.where(contradicted, -1.0, xp.where(shown, 0.0, odds))

    value = xp.where(present, earned - cost, xp.where(absent, denied, 0.0))
    value = (value - xp.where(joined.repeat & scored, config.repeat, 0.0)) / worth.total[:, None]
    gain = value.sum(1)
    process = xp.clip(gain + 1 - (worth.to_show + worth.to_deny) / worth.total, -1.0, 1.0)
    false = (present & ~supported) | (absent & contradicted)
    return Values(value, gain, process, final.max(1), present & supported, false, refuted)


def _denied_by_the_text(claims: Findings, absent: Array) -> Array:
    """Claims [B, M] that an asserted denial of the same concept, as wide as they are or wider, speaks against.

    A denial of a wider concept does not: "the mediastinum is normal" stands beside a large heart in many reports.
    """
    one, other = expand(claims, 2), expand(claims, 1)
    same = (one.concept == other.concept) & ((one.film == 0) | (other.film == 0) | (one.film == other.film))
    same = same & ((other.side == 0) | ((one.side > 0) & ((one.side & ~other.side) == 0)))
    for name in ("site", "severity", "change"):
        same = same & ((getattr(other, name) == 0) | (getattr(other, name) == getattr(one, name)))
    return (same & (absent & (claims.certainty == ASSERTED))[:, None]).any(2)


def _join(claims: Findings, scored: Array, refuted: Array, xp: Any) -> _Joined:
    one, other = expand(claims, 2), expand(claims, 1)
    same = (one.concept == other.concept) & (one.polarity == other.polarity) & (one.film == other.film)
    same = same & scored[..., None] & scored[:, None] & (refuted[..., None] == refuted[:, None])
    slot = xp.arange(claims.concept.shape[1], dtype=np.int32)
    row, column = slot[None, :, None], slot[None, None]
    earlier = same & (column < row)
    so_far = earlier | (same & (column == row))
    left, right = ((so_far & ((other.side & bit) > 0)).any(2).astype(np.int32) for bit in (1, 2))
    identical = earlier
    for name in ("side", "site", "severity", "change", "certainty"):
        identical = identical & (getattr(one, name) == getattr(other, name))
    return _Joined(
        side=left | right << 1,
        certainty=xp.where(so_far, other.certainty, 0).max(2),
        previous=xp.where(earlier, column, -1).max(2),
        last=scored & ~(same & (column > row)).any(2),
        repeat=identical.any(2),
    )


def _previous(values_BxMxK: Array, previous_BxM: Array, xp: Any) -> Array:
    """The values of the joined claim before each; 0 where there is none."""
    values = xp.take_along_axis(values_BxMxK, xp.maximum(previous_BxM, 0)[..., None], 1)
    return xp.where(previous_BxM[..., None] >= 0, values, 0.0)


def _agreement(config: ValueConfig, claim: Findings, finding: Findings, xp: Any) -> Array:
    """The share that claims [B, M, 1] earn of findings [B, 1, R] by their attributes."""
    both = (claim.side > 0) & (finding.side > 0)
    differs = claim.side != finding.side
    said = xp.where((claim.side & finding.side) > 0, ONE_OF_TWO_SIDES, WRONG_SIDE)
    share = xp.where(differs, xp.where(both, said, UNSAID_SIDE), 1.0)
    for name, factor in (("site", OTHER_SITE), ("change", OTHER_CHANGE)):
        one, other = getattr(claim, name), getattr(finding, name)
        share = share * xp.where((one > 0) & (other > 0) & (one != other), factor, 1.0)
    gap = xp.where((claim.severity > 0) & (finding.severity > 0), xp.abs(claim.severity - finding.severity), 0)
    share = share * xp.where(gap > 1, FAR_SEVERITY, xp.where(gap > 0, NEXT_SEVERITY, 1.0))
    share = share * xp.where((claim.certainty == 1) != (finding.certainty == 1), config.hedge, 1.0)
    return share.astype(np.float32)


def _odds(probability: Array) -> Array:
    return probability / (1 - probability)
