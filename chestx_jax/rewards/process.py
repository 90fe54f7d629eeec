"""Process terms over findings: plain ones for evaluation, and the guarded reward for training.

`factuality`, `completeness` and `effectiveness` are the terms of RadRScore by the release's rules, without guards;
`precision` and `recall` are the first two as the release's judge applies them, for evaluation. The training reward is
that of `guarded`.
"""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.findings import Findings, RewardTargets
from chestx_jax.labels import TASKS
from chestx_jax.lexicon.tables import Relations
from chestx_jax.rewards import guarded, verify
from chestx_jax.rewards.guarded import ClaimRelations, Guards, ratio
from chestx_jax.rewards.verify import Verdicts


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
    credit = verdicts.correct * jnp.where(verify.is_inferred(tables, claims, evidence, verdicts), 0.5, 1.0)
    scored = verdicts.scored
    same_step = scored[:, None] & scored[:, :, None] & (claims.step[:, :, None] == claims.step[:, None])
    repeats = same_step & verify.same_claim(claims, scored)
    distinct = ratio(scored.astype(jnp.float32), repeats.sum(2).astype(jnp.float32))
    weight = ratio(distinct, jnp.where(same_step, distinct[:, None], 0.0).sum(2))
    return ratio((weight * credit).sum(1), weight.sum(1))


def completeness(tables: Relations, claims: Findings, targets: Findings) -> Float[Array, " B"]:
    """Share of the distinct targets that the claims state with the same polarity; 0 without any target."""
    weight = verify.distinct_weight(targets, verify.is_scored(tables, targets))
    return ratio(jnp.where(verify.is_stated(tables, targets, claims), weight, 0.0).sum(1), weight.sum(1))


def recall(tables: Relations, claims: Findings, targets: Findings) -> Float[Array, " B"]:
    """Completeness as a reader of the whole reasoning judges it (evaluation only): the mean of two shares.

    The share of the distinct targets that the claims state, after `resolve_hypotheses` on both sides; and the share of
    the targets' distinct concepts, asserted or hypothetical, that the claims mention at all. The release's judge counts
    both as recalled, the second almost alone.
    """
    all_targets, all_claims = (
        findings._replace(
            polarity=jnp.ones_like(findings.polarity),
            side=jnp.zeros_like(findings.side),
            certainty=jnp.where(findings.valid, 2, 0),
        )
        for findings in (targets, claims)
    )
    stated = completeness(tables, resolve_hypotheses(tables, claims), resolve_hypotheses(tables, targets))
    return 0.5 * (stated + completeness(tables, all_claims, all_targets))


def resolve_hypotheses(tables: Relations, findings: Findings) -> Findings:
    """The findings with those hypothetical ones denied whose concept, and any related to it, is never asserted."""
    asserted = verify.is_related(tables, findings) & (jnp.asarray(findings.certainty) > 0)[:, None]
    unresolved = findings.valid & (jnp.asarray(findings.certainty) == 0) & ~asserted.any(2)
    return findings._replace(
        polarity=jnp.where(unresolved, 0, findings.polarity), certainty=jnp.where(unresolved, 2, findings.certainty)
    )


def effectiveness(first_useful_BxM: Bool[Array, "B M"], sentences_B: Int[Array, " B"]) -> Float[Array, " B"]:
    """Share of sentences with a useful claim: a correct one that the report or the reference steps state.

    `first_useful_BxM` marks one useful claim of each sentence that has any.
    """
    useful_sentences = first_useful_BxM.sum(1).astype(jnp.float32)
    return jnp.minimum(ratio(useful_sentences, sentences_B.astype(jnp.float32)), 1.0)


def target_findings(targets: RewardTargets, prompt_B: Int[Array, " B"]) -> Findings:
    """The findings that a reasoning should state: of the reference steps, or of the report where there are none."""
    steps, report = gather_rows(targets.steps, prompt_B), gather_rows(targets.report, prompt_B)
    has_steps = steps.valid.any(1)

    def choose(one: Array, two: Array) -> Array:
        return jnp.where(has_steps.reshape((-1,) + (1,) * (one.ndim - 1)), one, two)

    return Findings(**{name: choose(getattr(steps, name), getattr(report, name)) for name in Findings._fields})


def gather_rows(findings: Findings, row_B: Int[Array, " B"]) -> Findings:
    """The findings of the given rows, one row a completion."""
    return Findings(**{name: jnp.asarray(values)[row_B] for name, values in findings._asdict().items()})


@struct.dataclass
class ProcessTerms:
    """All process terms of B completions, and what they rest on."""

    factuality: Float[Array, " B"]
    completeness: Float[Array, " B"]
    effectiveness: Float[Array, " B"]
    reward: Float[Array, " B"]  # the guarded mix
    verdicts: Verdicts
    relations: ClaimRelations


def process_terms(
    tables: Relations,
    claims: Findings,
    targets: RewardTargets,
    prompt_B: Int[Array, " B"],
    words_B: Int[Array, " B"],
    sentences_B: Int[Array, " B"],
    mix: tuple[float, float, float],
    guards: Guards,
) -> ProcessTerms:
    """The process terms of claims [B, M] against the targets of each completion's prompt.

    `words_B` and `sentences_B` count the think block; `mix` weighs factuality, completeness and effectiveness.
    """
    report, stated_targets = gather_rows(targets.report, prompt_B), target_findings(targets, prompt_B)
    verdicts = verify.verify(tables, claims, report)
    two_films = jnp.asarray(targets.task)[prompt_B] == TASKS.index("temporal")
    relations = guarded.relate_claims(tables, claims, verdicts, report, stated_targets, two_films)
    everything = jnp.ones((*verdicts.scored.shape, 1), jnp.float32)
    words, sentences = words_B.astype(jnp.float32)[:, None], sentences_B.astype(jnp.float32)[:, None]
    reward = guarded.guarded_reward(relations, everything, words, sentences, mix, guards)
    return ProcessTerms(
        factuality=factuality(verdicts),
        completeness=completeness(tables, claims, stated_targets),
        effectiveness=effectiveness(relations.first_useful, sentences_B),
        reward=reward[:, 0],
        verdicts=verdicts,
        relations=relations,
    )
