"""The terms of RadRScore by rules, over findings.

`factuality`, `completeness` and `effectiveness` are the release's rules as they are written, and what
`rewards.rule=paper` pays; `precision`, `recall` and `efficiency` are the same as the release's judge applies them, for
evaluation. The value that training pays by default is that of `value`. Over the array namespace of the arguments.
"""

import numpy as np
from jaxtyping import Float

from chestx_jax.findings import Findings, RewardTargets
from chestx_jax.findings.arrays import Array
from chestx_jax.findings.slots import namespace
from chestx_jax.lexicon.tables import Relations
from chestx_jax.rewards import verify
from chestx_jax.rewards.verify import Verdicts

STATED = 0.35  # weight of what is stated in `recall`; the rest is what is mentioned


def factuality(verdicts: Verdicts) -> Float[Array, " B"]:
    """Mean correctness of the distinct claims; 0 where nothing is claimed."""
    return ratio((verdicts.weight * verdicts.correct).sum(1), verdicts.weight.sum(1))


def precision(tables: Relations, claims: Findings, evidence: Findings, verdicts: Verdicts) -> Float[Array, " B"]:
    """Factuality as a reader of the whole reasoning judges it (evaluation only); 0 where nothing is claimed.

    The mean over the sentences with claims of the mean correctness of each one's distinct claims: the release's judge
    takes its observations statement by statement, and a repeated statement again. A claim that is only inferred
    (`verify.is_inferred`) gets half its credit: that judge calls an unmentioned denial right beside a normal report,
    and doubts it where the report finds something there.
    """
    xp = namespace(claims)
    credit = verdicts.correct * xp.where(
        verify.is_inferred(tables, claims, evidence, verdicts), np.float32(0.5), np.float32(1)
    )
    scored = verdicts.scored
    same_step = scored[:, None] & scored[:, :, None] & (claims.step[:, :, None] == claims.step[:, None])
    repeats = same_step & verify.same_claim(claims, scored)
    distinct = ratio(scored.astype(np.float32), repeats.sum(2).astype(np.float32))
    weight = ratio(distinct, xp.where(same_step, distinct[:, None], 0.0).sum(2))
    return ratio((weight * credit).sum(1), weight.sum(1))


def completeness(tables: Relations, claims: Findings, targets: Findings) -> Float[Array, " B"]:
    """Share of the distinct targets that the claims state with the same polarity; 0 without any target."""
    weight = verify.distinct_weight(targets, verify.is_scored(tables, targets))
    stated = namespace(claims).where(verify.is_stated(tables, targets, claims), weight, 0.0)
    return ratio(stated.sum(1), weight.sum(1))


def recall(tables: Relations, claims: Findings, targets: Findings) -> Float[Array, " B"]:
    """Completeness as a reader of the whole reasoning judges it (evaluation only): a weighted mean of two shares.

    What the claims state of the distinct targets, after `resolve_hypotheses` on both sides, and which of their concepts
    the claims mention at all; in both, a relative of the target's concept earns its credit. The release's judge counts
    both as recalled, the second far more.
    """
    xp = namespace(claims)
    claims, targets = resolve_hypotheses(tables, claims), resolve_hypotheses(tables, targets)
    credit = xp.asarray(tables.credit)[targets.concept[:, :, None], claims.concept[:, None]]
    mentions = claims.valid & xp.asarray(tables.counted)[claims.concept]
    same_polarity = targets.polarity[:, :, None] == claims.polarity[:, None]
    stated = xp.where(same_polarity & verify.is_scored(tables, claims)[:, None], credit, 0.0).max(2)
    mentioned = xp.where(mentions[:, None], credit, 0.0).max(2)
    weight = verify.distinct_weight(targets, verify.is_scored(tables, targets))
    share = STATED * stated + (1 - STATED) * mentioned
    return ratio((share * weight).sum(1), weight.sum(1))


def resolve_hypotheses(tables: Relations, findings: Findings) -> Findings:
    """The findings with those hypothetical ones denied whose concept, and any related to it, is never asserted."""
    xp = namespace(findings)
    asserted = verify.is_related(tables, findings) & (findings.certainty > 0)[:, None]
    unresolved = findings.valid & (findings.certainty == 0) & ~asserted.any(2)
    return findings._replace(
        polarity=xp.where(unresolved, 0, findings.polarity), certainty=xp.where(unresolved, 2, findings.certainty)
    )


def effectiveness(tables: Relations, claims: Findings, targets: Findings) -> Float[Array, " B"]:
    """The mean, over the sentences that claim something new, of the share of their new claims that the targets state;
    0 where nothing is claimed. So a repeated sentence counts for nothing, and one that claims nothing is no step."""
    return _mean_by_step(claims, verify.is_scored(tables, claims), verify.is_stated(tables, claims, targets))


def efficiency(tables: Relations, claims: Findings, targets: Findings) -> Float[Array, " B"]:
    """Effectiveness as a reader of the whole reasoning judges it (evaluation only).

    What is only weighed ("look for an effusion") is a step too, of use if the targets speak of it: the release's judge
    counts such steps, of which some models' reasonings are full.
    """
    xp = namespace(claims)
    counted, credit = xp.asarray(tables.counted), xp.asarray(tables.credit)
    weighed = claims.valid & counted[claims.concept] & (claims.certainty == 0)
    related = credit[targets.concept[:, None], claims.concept[:, :, None]] > 0
    named = (related & (targets.valid & counted[targets.concept])[:, None]).any(2)
    claims = claims._replace(polarity=xp.where(weighed, 2, claims.polarity))  # neither present nor absent
    of_use = xp.where(weighed, named, verify.is_stated(tables, claims, targets))
    return _mean_by_step(claims, verify.is_scored(tables, claims) | weighed, of_use)


def _mean_by_step(claims: Findings, scored: Array, right: Array) -> Float[Array, " B"]:
    """The mean over sentences of the share of their scored claims, each where it comes first, that are right."""
    xp = namespace(claims)
    slot = xp.arange(scored.shape[1])
    earlier = (slot[None] < slot[:, None])[None]
    new = scored & ~(verify.same_claim(claims, scored) & earlier).any(2)
    same_step = new[:, None] & new[:, :, None] & (claims.step[:, :, None] == claims.step[:, None])
    weight = ratio(new.astype(np.float32), same_step.sum(2).astype(np.float32))
    return ratio(xp.where(right, weight, 0.0).sum(1), weight.sum(1))


def target_findings(targets: RewardTargets) -> Findings:
    """The findings that each prompt's reasoning should state: of the reference steps, or of the report without any."""
    has_steps_Nx1 = targets.steps.valid.any(1)[:, None]
    where, pairs = namespace(targets.report).where, zip(targets.steps, targets.report, strict=True)
    return Findings(*(where(has_steps_Nx1 if one.ndim > 1 else has_steps_Nx1[:, 0], one, two) for one, two in pairs))


def ratio(numerator: Float[Array, "..."], denominator: Float[Array, "..."]) -> Float[Array, "..."]:
    """numerator / denominator in fp32; 0 where the denominator is not above 0."""
    where = numerator.__array_namespace__().where
    return where(denominator > 0, numerator / where(denominator > 0, denominator, 1.0), 0.0).astype(np.float32)
