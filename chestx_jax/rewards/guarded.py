"""The guarded process reward of any selection of a reasoning's claims, and from it the contribution of each step.

Guards are factors in [0, 1] or weights that lower the reward of text which games a plain term. The relations between
claims and evidence are computed once and a selection of claims is a mask over them, so that the rewards of the text
without each of its steps cost little more than the reward itself.

Shapes: B texts, M claims, K selections of a text's claims, R targets (findings that a reasoning should state), Q
findings of the report.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.config import bounded
from chestx_jax.findings import Findings
from chestx_jax.lexicon.tables import Relations
from chestx_jax.rewards import verify
from chestx_jax.rewards.verify import Verdicts


@dataclass(frozen=True)
class Guards:
    """Strength of each guard. A guard is off at the value in brackets."""

    trivial: float = bounded(0.1, min=0.0, max=1.0)  # weight of denials that neither report nor reference mentions [1]
    # Share of the reward lost if no present finding of the report is stated [0]
    coverage: float = bounded(0.6, min=0.0, max=1.0)
    repeats: float = bounded(2.0, above=0.0, max=math.inf)  # mentions of a claim without loss [inf]
    words_per_claim: float = bounded(2.2, min=0.0)  # fewer lose reward, as a list of keywords [0]
    words: float = bounded(12.0, min=0.0)  # fewer in all lose reward, as no reasoning [0]
    # False positives without loss; more lose reward, as guesses [inf]
    alarms: float = bounded(2.0, above=0.0, max=math.inf)
    padding: float = bounded(0.25, min=0.0, max=1.0)  # a smaller share of effective sentences loses reward [0]
    contradictions: bool = True  # contradicting claims both count as wrong [False]


@struct.dataclass
class ClaimRelations:
    """Everything that the reward reads of B texts with M claims each, whichever claims are selected."""

    correct: Float[Array, "B M"]
    scored: Bool[Array, "B M"]
    positive: Bool[Array, "B M"]  # a scored claim of presence; a false positive where it is wrong
    trivial: Bool[Array, "B M"]  # a denial that neither the report nor the reference mentions
    first_useful: Bool[Array, "B M"]  # the first useful claim of its sentence
    same_claim: Bool[Array, "B M M"]  # same concept and polarity
    contradiction: Bool[Array, "B M M"]  # one denies the other
    states_target: Bool[Array, "B R M"]  # the claim states the target
    target_weight: Float[Array, "B R"]
    states_report: Bool[Array, "B Q M"]  # the claim states the report's finding
    present_weight: Float[Array, "B Q"]  # of the report's present findings; 0 for others


def relate_claims(
    tables: Relations,
    claims: Findings,
    verdicts: Verdicts,
    report: Findings,
    targets: Findings,
    two_films: Bool[Array, " B"],
) -> ClaimRelations:
    """The relations of the claims [B, M] to each other, to the report [B, Q] and to the targets [B, R]."""
    present = verify.is_scored(tables, report) & (report.polarity == 1) & (report.concept != verify.NO_FINDING)
    in_targets = verify.is_stated(tables, claims, targets)
    useful = verdicts.scored & (verdicts.correct > 0) & (verdicts.explicit | in_targets)
    return ClaimRelations(
        correct=verdicts.correct,
        scored=verdicts.scored,
        positive=verdicts.scored & (claims.polarity == 1),
        trivial=(claims.polarity == 0) & ~verdicts.explicit & ~in_targets,
        first_useful=_first_of_step(claims, useful),
        same_claim=verify.same_claim(claims, verdicts.scored),
        contradiction=verify.contradictions(tables, claims, two_films),
        states_target=verify.stated_by(tables, targets, claims),
        target_weight=verify.distinct_weight(targets, verify.is_scored(tables, targets)),
        states_report=verify.stated_by(tables, report, claims),
        present_weight=verify.distinct_weight(report, present),
    )


def guarded_reward(
    relations: ClaimRelations,
    selected_BxMxK: Float[Array, "B M K"],
    words_BxK: Float[Array, "B K"],
    sentences_BxK: Float[Array, "B K"],
    mix: tuple[float, float, float],
    guards: Guards,
) -> Float[Array, "B K"]:
    """The reward, in [0, 1], of K selections (0 or 1) of each text's claims.

    The mean by `mix` of factuality, completeness and effectiveness, times the factor of each guard. `words_BxK` and
    `sentences_BxK` count the think block.
    """
    selected = jnp.where(relations.scored[..., None], selected_BxMxK, 0.0)
    correct = jnp.broadcast_to(relations.correct[..., None], selected.shape)
    if guards.contradictions:
        correct = jnp.where(_any_selected(relations.contradiction, selected), 0.0, correct)
    once = selected / jnp.maximum(_count_selected(relations.same_claim, selected), 1.0)  # repeats share one claim
    weight = once * jnp.where(relations.trivial[..., None] & (correct > 0), guards.trivial, 1.0)
    factual = ratio((weight * correct).sum(1), weight.sum(1))
    complete = _stated_share(relations.states_target, relations.target_weight, selected, 0.0)
    useful = jnp.where(relations.first_useful[..., None], selected, 0.0).sum(1)
    effective = jnp.minimum(ratio(useful, sentences_BxK), 1.0)
    mixed = mix[0] * factual + mix[1] * complete + mix[2] * effective

    claims = jnp.maximum(selected.sum(1), 1.0)
    spare_words = words_BxK / claims - 1.2
    false_positives = jnp.where(relations.positive[..., None] & (correct == 0), once, 0.0).sum(1)
    factors = (
        1.0 - guards.coverage * (1.0 - _stated_share(relations.states_report, relations.present_weight, selected, 1.0)),
        jnp.minimum(ratio(once.sum(1) * guards.repeats, selected.sum(1)), 1.0),
        jnp.clip(spare_words / max(guards.words_per_claim - 1.2, 1e-6), 0.0, 1.0),
        jnp.minimum(words_BxK / max(guards.words, 1e-6), 1.0),
        jnp.minimum(guards.alarms / jnp.maximum(false_positives, 1e-6), 1.0),
        jnp.minimum(effective / max(guards.padding, 1e-6), 1.0),
    )
    for factor in factors:
        mixed = mixed * factor
    return (mixed / max(sum(mix), 1e-6)).astype(jnp.float32)


def step_contributions(
    relations: ClaimRelations,
    step_BxM: Int[Array, "B M"],
    step_words_BxM: Int[Array, "B M"],
    words_B: Int[Array, " B"],
    sentences_B: Int[Array, " B"],
    mix: tuple[float, float, float],
    guards: Guards,
) -> Float[Array, "B M"]:
    """The reward less that of the text without each claim's sentence (`step_words_BxM` long); below 0, it costs.

    A difference reward (Wolpert and Tumer 2001, "Optimal payoff functions for members of collectives"). Compared with
    the mean truth of a sentence it measures against saying nothing instead, so an uncertain finding is not worth less
    than silence because surer ones are beside it.
    """
    other_steps_BxMxM = (step_BxM[:, :, None] != step_BxM[:, None]).astype(jnp.float32)
    words, sentences = words_B.astype(jnp.float32)[:, None], sentences_B.astype(jnp.float32)[:, None]
    everything = jnp.ones_like(other_steps_BxMxM[..., :1])
    reward = guarded_reward(relations, everything, words, sentences, mix, guards)
    words_left = words - step_words_BxM.astype(jnp.float32)
    sentences_left = jnp.broadcast_to(sentences - 1.0, words_left.shape)
    reward_without = guarded_reward(relations, other_steps_BxMxM, words_left, sentences_left, mix, guards)
    return jnp.where(relations.scored, reward - reward_without, 0.0)


def ratio(numerator: Float[Array, "..."], denominator: Float[Array, "..."]) -> Float[Array, "..."]:
    """numerator / denominator in fp32; 0 where the denominator is not above 0."""
    quotient = jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 0.0)
    return quotient.astype(jnp.float32)


def _first_of_step(claims: Findings, useful_BxM: Bool[Array, "B M"]) -> Bool[Array, "B M"]:
    """The first useful claim of each sentence that has one."""
    same_step = claims.step[:, :, None] == claims.step[:, None]
    both_useful = same_step & useful_BxM[:, None] & useful_BxM[:, :, None]
    earlier_MxM = jnp.tril(jnp.ones((useful_BxM.shape[1], useful_BxM.shape[1]), bool), -1)
    return useful_BxM & ~(both_useful & earlier_MxM[None]).any(2)


def _count_selected(pairs: Bool[Array, "B X M"], selected: Float[Array, "B M K"]) -> Float[Array, "B X K"]:
    """Number of selected claims that each of X findings is paired with."""
    return jnp.einsum("bxm,bmk->bxk", pairs.astype(jnp.float32), selected)


def _any_selected(pairs: Bool[Array, "B X M"], selected: Float[Array, "B M K"]) -> Bool[Array, "B X K"]:
    return _count_selected(pairs, selected) > 0


def _stated_share(
    pairs: Bool[Array, "B X M"], weight: Float[Array, "B X"], selected: Float[Array, "B M K"], default: float
) -> Float[Array, "B K"]:
    """The weighted share of X findings that a selected claim states; `default` where none has weight."""
    total = weight.sum(1)[:, None]
    stated = jnp.where(_any_selected(pairs, selected), weight[..., None], 0.0).sum(1)
    return jnp.where(total > 0, ratio(stated, total), default)
