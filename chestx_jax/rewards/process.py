"""Process terms over the same findings: plain ones for evaluation, and the guarded reward for training.

`factuality`, `completeness` and `effectiveness` follow the release's rules (RadRScore) without guards; `precision` and
`recall` are the first two as the release's judge applies them, for evaluation. The reward is `guarded`'s.
"""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.lexicon.token_tables import Relations
from chestx_jax.rewards import guarded, verify
from chestx_jax.rewards.guarded import Guards, Relation, ratio
from chestx_jax.rewards.verify import Verdicts
from chestx_jax.types import TASKS, Findings, RewardTargets


def factuality(verdicts: Verdicts) -> Float[Array, " B"]:
    """Mean correctness of the distinct claims; 0 where nothing is claimed."""
    return ratio((verdicts.weight * verdicts.correct).sum(1), verdicts.weight.sum(1))


def precision(tables: Relations, claims: Findings, evidence: Findings, verdicts: Verdicts) -> Float[Array, " B"]:
    """Factuality as a reader of the whole reasoning judges it (evaluation only); 0 where nothing is claimed.

    The mean over the sentences that claim something of the mean correctness of each one's distinct claims: the
    release's judge takes its observations from the text statement by statement, and a statement made again is taken
    again. Of a claim that only inference bears out (`verify.inferred`) half is granted: that judge calls an
    unmentioned denial right beside a normal report, and doubts it where the report finds something there.
    """
    granted = verdicts.correct * jnp.where(verify.inferred(tables, claims, evidence, verdicts), 0.5, 1.0)
    both = verdicts.scored[:, None] & verdicts.scored[:, :, None] & (claims.step[:, :, None] == claims.step[:, None])
    same = both & verify.alike(claims, verdicts.scored)
    share = ratio(verdicts.scored.astype(jnp.float32), same.sum(2).astype(jnp.float32))
    weight = ratio(share, jnp.where(both, share[:, None], 0.0).sum(2))
    return ratio((weight * granted).sum(1), weight.sum(1))


def completeness(tables: Relations, claims: Findings, wanted: Findings) -> Float[Array, " B"]:
    """Share of the distinct reference findings that the claims state with the same polarity; 0 without any."""
    weight = verify.share(wanted, verify.scored(tables, wanted))
    return ratio(jnp.where(verify.stated(tables, wanted, claims), weight, 0.0).sum(1), weight.sum(1))


def recall(tables: Relations, claims: Findings, wanted: Findings) -> Float[Array, " B"]:
    """Completeness as a reader of the whole reasoning judges it (evaluation only): the mean of two shares.

    The share of the distinct reference findings that the claims state, where either side's concepts that are weighed
    ("look for edema") and never told count as denied; and the share of the reference's distinct concepts, told or
    weighed, that the claims take up at all. The release's judge counts both as recalled, the second almost alone.
    """
    every, taken = (
        found.replace(  # type: ignore[attr-defined]
            polarity=jnp.ones_like(found.polarity),
            side=jnp.zeros_like(found.side),
            certainty=jnp.where(found.valid, 2, 0),
        )
        for found in (wanted, claims)
    )
    told = completeness(tables, settled(tables, claims), settled(tables, wanted))
    return 0.5 * (told + completeness(tables, taken, every))


def settled(tables: Relations, findings: Findings) -> Findings:
    """The findings with concepts that are weighed and never told, nor any kind of them, turned into denials."""
    told = verify.related(tables, findings) & (jnp.asarray(findings.certainty) > 0)[:, None]
    weighed = findings.valid & (jnp.asarray(findings.certainty) == 0) & ~told.any(2)
    return findings.replace(  # type: ignore[attr-defined]
        polarity=jnp.where(weighed, 0, findings.polarity), certainty=jnp.where(weighed, 2, findings.certainty)
    )


def effectiveness(first: Bool[Array, "B M"], sentences: Int[Array, " B"]) -> Float[Array, " B"]:
    """Share of sentences with at least one useful claim (correct, and stated by the report or the reference steps);
    `first` marks one such claim a sentence."""
    return jnp.minimum(ratio(first.sum(1).astype(jnp.float32), sentences.astype(jnp.float32)), 1.0)


def wanted(reference: RewardTargets, rows: Int[Array, " B"]) -> Findings:
    """The findings a reasoning should state: of the reference steps, or of the report where there are none."""
    steps, report = take(reference.steps, rows), take(reference.report, rows)
    has_steps = steps.valid.any(1)

    def choose(one: Array, two: Array) -> Array:
        return jnp.where(has_steps.reshape((-1,) + (1,) * (one.ndim - 1)), one, two)

    return Findings(**{name: choose(getattr(steps, name), getattr(report, name)) for name in vars(steps)})


def take(findings: Findings, rows: Int[Array, " B"]) -> Findings:
    """The findings of some rows, one a completion."""
    return Findings(**{name: jnp.asarray(values)[rows] for name, values in vars(findings).items()})


@struct.dataclass
class Process:
    """All process terms of B completions."""

    factuality: Float[Array, " B"]
    completeness: Float[Array, " B"]
    effectiveness: Float[Array, " B"]
    reward: Float[Array, " B"]  # the guarded mix
    verdicts: Verdicts
    pairs: Relation  # of the claims and what they are judged by


def process(
    tables: Relations,
    claims: Findings,
    reference: RewardTargets,
    rows: Int[Array, " B"],
    words: Int[Array, " B"],
    sentences: Int[Array, " B"],
    mix: tuple[float, float, float],
    guards: Guards,
) -> Process:
    """Judge claims [B, M] by row `rows[b]` of the reference. `words`, `sentences`: of the think block."""
    report, goal = take(reference.report, rows), wanted(reference, rows)
    verdicts = verify.verify(tables, claims, report)
    two_films = jnp.asarray(reference.task)[rows] == TASKS.index("temporal")
    pairs = guarded.relation(tables, claims, verdicts, report, goal, two_films)
    whole = jnp.ones((*verdicts.scored.shape, 1), jnp.float32)
    paid = guarded.reward(
        pairs, whole, words.astype(jnp.float32)[:, None], sentences.astype(jnp.float32)[:, None], mix, guards
    )
    return Process(
        factuality(verdicts),
        completeness(tables, claims, goal),
        effectiveness(pairs.first_useful, sentences),
        paid[:, 0],
        verdicts,
        pairs,
    )
