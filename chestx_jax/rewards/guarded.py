"""The guarded process reward of any selection of a reasoning's claims, and from it what each step contributes.

Guards are factors in [0, 1] or weights, so that text which games a plain term earns less than honest work does. All
relations between claims and evidence are found once; a selection of claims is then a product with a mask, so that the
reward of the text without each of its steps costs little more than the reward itself.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.lexicon.token_tables import Relations
from chestx_jax.rewards import verify
from chestx_jax.rewards.verify import Verdicts
from chestx_jax.types import Findings


@dataclass(frozen=True)
class Guards:
    """How strongly the reward is guarded. A guard is off at the value in brackets."""

    trivial: float = 0.1  # weight of denials nobody asked for [1]
    coverage: float = 0.6  # share at stake for unstated present findings [0]
    repeats: float = 2.0  # free mentions of a claim [inf]
    words_per_claim: float = 2.2  # below it, text is a list of keywords [0]
    words: float = 12.0  # below it, text is no reasoning [0]
    alarms: float = 2.0  # free wrong "present" claims; more of them is guessing [inf]
    padding: float = 0.25  # least share of effective sentences [0]
    contradictions: bool = True


@struct.dataclass
class Relation:
    """What the reward needs to know of B texts with M claims each, whichever of them are selected."""

    correct: Float[Array, "B M"]
    scored: Bool[Array, "B M"]
    alarm: Bool[Array, "B M"]  # says that something is there
    trivial: Bool[Array, "B M"]  # a denial that neither the report nor the reference speaks of
    first_useful: Bool[Array, "B M"]  # the first useful claim of its sentence
    alike: Bool[Array, "B M M"]  # same concept and polarity
    clash: Bool[Array, "B M M"]  # one contradicts the other
    recalls: Bool[Array, "B R M"]  # the claim states the wanted finding
    wanted: Float[Array, "B R"]  # weights of the wanted findings
    covers: Bool[Array, "B Q M"]  # the claim states the report's finding
    present: Float[Array, "B Q"]  # weights of the report's present findings


def relation(
    tables: Relations,
    claims: Findings,
    verdicts: Verdicts,
    report: Findings,
    goal: Findings,
    two_films: Bool[Array, " B"],
) -> Relation:
    """The relations between the claims, the report and the goal (what a reasoning should state)."""
    found = verify.scored(tables, report) & (report.polarity == 1) & (report.concept != verify.NO_FINDING)
    asked_for = verify.stated(tables, claims, goal)
    useful = verdicts.scored & (verdicts.correct > 0) & (verdicts.explicit | asked_for)
    return Relation(
        correct=verdicts.correct,
        scored=verdicts.scored,
        alarm=verdicts.scored & (claims.polarity == 1),
        trivial=(claims.polarity == 0) & ~verdicts.explicit & ~asked_for,
        first_useful=_first_of_step(claims, useful),
        alike=verify.alike(claims, verdicts.scored),
        clash=verify.clashes(tables, claims, two_films),
        recalls=verify.states(tables, goal, claims),
        wanted=verify.share(goal, verify.scored(tables, goal)),
        covers=verify.states(tables, report, claims),
        present=verify.share(report, found),
    )


def reward(
    pairs: Relation,
    kept: Float[Array, "B M K"],
    words: Float[Array, "B K"],
    sentences: Float[Array, "B K"],
    mix: tuple[float, float, float],
    guards: Guards,
) -> Float[Array, "B K"]:
    """The reward of K selections of each text's claims: the mix (factuality, completeness, effectiveness; weights need
    not sum to 1) with guarded factuality, times the guards' factors. `words` and `sentences` count the think block."""
    kept = jnp.where(pairs.scored[..., None], kept, 0.0)
    correct = jnp.broadcast_to(pairs.correct[..., None], kept.shape)
    if guards.contradictions:
        correct = jnp.where(_reached(pairs.clash, kept), 0.0, correct)
    once = kept / jnp.maximum(_count(pairs.alike, kept), 1.0)  # a claim counts once, however often it is made
    weight = once * jnp.where(pairs.trivial[..., None] & (correct > 0), guards.trivial, 1.0)
    factual = ratio((weight * correct).sum(1), weight.sum(1))
    complete = _share(pairs.recalls, pairs.wanted, kept, 0.0)
    effective = jnp.minimum(ratio(jnp.where(pairs.first_useful[..., None], kept, 0.0).sum(1), sentences), 1.0)
    mixed = mix[0] * factual + mix[1] * complete + mix[2] * effective

    claimed = jnp.maximum(kept.sum(1), 1.0)
    spare = words / claimed - 1.2
    alarms = jnp.where(pairs.alarm[..., None] & (correct == 0), once, 0.0).sum(1)
    factors = (
        1.0 - guards.coverage * (1.0 - _share(pairs.covers, pairs.present, kept, 1.0)),
        jnp.minimum(ratio(once.sum(1) * guards.repeats, kept.sum(1)), 1.0),
        jnp.clip(spare / max(guards.words_per_claim - 1.2, 1e-6), 0.0, 1.0),
        jnp.minimum(words / max(guards.words, 1e-6), 1.0),
        jnp.minimum(guards.alarms / jnp.maximum(alarms, 1e-6), 1.0),
        jnp.minimum(effective / max(guards.padding, 1e-6), 1.0),
    )
    for factor in factors:
        mixed = mixed * factor
    return (mixed / max(sum(mix), 1e-6)).astype(jnp.float32)


def contributions(
    pairs: Relation,
    step: Int[Array, "B M"],
    step_words: Int[Array, "B M"],
    words: Int[Array, " B"],
    sentences: Int[Array, " B"],
    mix: tuple[float, float, float],
    guards: Guards,
) -> Float[Array, "B M"]:
    """What the reward would lose without each claim's sentence (`step_words` long); below 0, the sentence costs.

    A difference reward (Wolpert and Tumer 2001, "Optimal payoff functions for members of collectives"): unlike the mean
    truth of a sentence it says what saying nothing instead would have earned, so an uncertain finding is not worth less
    than silence because surer ones stand beside it.
    """
    others = (step[:, :, None] != step[:, None]).astype(jnp.float32)
    all_words, all_sentences = words.astype(jnp.float32)[:, None], sentences.astype(jnp.float32)[:, None]
    whole = reward(pairs, jnp.ones_like(others[..., :1]), all_words, all_sentences, mix, guards)
    left = all_words - step_words.astype(jnp.float32)
    rest = reward(pairs, others, left, jnp.broadcast_to(all_sentences - 1.0, left.shape), mix, guards)
    return jnp.where(pairs.scored, whole - rest, 0.0)


def ratio(top: Float[Array, "..."], bottom: Float[Array, "..."]) -> Float[Array, "..."]:
    """top / bottom in fp32, 0 where bottom is not above 0."""
    return jnp.where(bottom > 0, top / jnp.where(bottom > 0, bottom, 1.0), 0.0).astype(jnp.float32)


def _first_of_step(claims: Findings, marked: Bool[Array, "B M"]) -> Bool[Array, "B M"]:
    """The first marked claim of each sentence that has one."""
    same = (claims.step[:, :, None] == claims.step[:, None]) & marked[:, None] & marked[:, :, None]
    before = jnp.tril(jnp.ones((marked.shape[1], marked.shape[1]), bool), -1)
    return marked & ~(same & before[None]).any(2)


def _count(pairs: Bool[Array, "B X M"], kept: Float[Array, "B M K"]) -> Float[Array, "B X K"]:
    """How many kept claims each of X things is paired with."""
    return jnp.einsum("bxm,bmk->bxk", pairs.astype(jnp.float32), kept)


def _reached(pairs: Bool[Array, "B X M"], kept: Float[Array, "B M K"]) -> Bool[Array, "B X K"]:
    return _count(pairs, kept) > 0


def _share(
    pairs: Bool[Array, "B X M"], weight: Float[Array, "B X"], kept: Float[Array, "B M K"], without: float
) -> Float[Array, "B K"]:
    """The weighted share of X things that a kept claim states; `without` where nothing has weight."""
    whole = weight.sum(1)[:, None]
    stated = jnp.where(_reached(pairs, kept), weight[..., None], 0.0).sum(1)
    return jnp.where(whole > 0, ratio(stated, whole), without)
