"""Process terms over the same findings: plain ones for evaluation, and the guarded reward for training.

`factuality`, `completeness` and `effectiveness` follow the release's rules (RadRScore) without guards; `precision` and
`recall` are the first two as the release's judge applies them, for evaluation. The reward adds guards, each a factor in
[0, 1] or a weight, so that text which games a plain term earns less than honest work does.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.lexicon.vocabulary import Relations
from chestx_jax.rewards import verify
from chestx_jax.rewards.verify import Verdicts
from chestx_jax.types import TASKS, Findings, Reference


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


def factuality(verdicts: Verdicts) -> Float[Array, " B"]:
    """Mean correctness of the distinct claims; 0 where nothing is claimed."""
    return _ratio((verdicts.weight * verdicts.correct).sum(1), verdicts.weight.sum(1))


def precision(tables: Relations, claims: Findings, evidence: Findings, verdicts: Verdicts) -> Float[Array, " B"]:
    """Factuality as a reader of the whole reasoning judges it (evaluation only); 0 where nothing is claimed.

    The mean over the sentences that claim something of the mean correctness of each one's distinct claims: the
    release's judge takes its observations from the text statement by statement, and a statement made again is taken
    again. Of a claim that only inference bears out (`verify.inferred`) half is granted: that judge calls an
    unmentioned denial right beside a normal report, and doubts it where the report finds something there.
    """
    granted = verdicts.correct * jnp.where(verify.inferred(tables, claims, evidence, verdicts), 0.5, 1.0)
    both = verdicts.scored[:, None] & verdicts.scored[:, :, None] & (claims.step[:, :, None] == claims.step[:, None])
    same = (claims.concept[:, :, None] == claims.concept[:, None]) & (
        claims.polarity[:, :, None] == claims.polarity[:, None]
    )
    share = _ratio(verdicts.scored.astype(jnp.float32), (both & same).sum(2).astype(jnp.float32))
    weight = _ratio(share, jnp.where(both, share[:, None], 0.0).sum(2))
    return _ratio((weight * granted).sum(1), weight.sum(1))


def completeness(tables: Relations, claims: Findings, wanted: Findings) -> Float[Array, " B"]:
    """Share of the distinct reference findings that the claims state with the same polarity; 0 without any."""
    weight = verify.share(wanted, verify.scored(tables, wanted))
    return _ratio(jnp.where(verify.stated(tables, wanted, claims), weight, 0.0).sum(1), weight.sum(1))


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


def effectiveness(claims: Findings, useful: Bool[Array, "B M"], sentences: Int[Array, " B"]) -> Float[Array, " B"]:
    """Share of sentences with at least one useful finding (correct, and stated by the report or the reference steps)."""  # noqa: E501
    same = (claims.step[:, :, None] == claims.step[:, None]) & useful[:, None] & useful[:, :, None]
    first = useful & ~(same & _strictly_before(useful.shape[1])).any(2)
    return jnp.minimum(_ratio(first.sum(1).astype(jnp.float32), sentences.astype(jnp.float32)), 1.0)


def wanted(reference: Reference, rows: Int[Array, " B"]) -> Findings:
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
    step_value: Float[Array, "B M"]  # mean guarded correctness of the claims of each claim's own sentence
    creditable: Bool[Array, "B M"]  # scored claims that earn or lose credit: trivial denials do neither
    verdicts: Verdicts


def process(
    tables: Relations,
    claims: Findings,
    reference: Reference,
    rows: Int[Array, " B"],
    words: Int[Array, " B"],
    sentences: Int[Array, " B"],
    mix: tuple[float, float, float],
    guards: Guards,
) -> Process:
    """Judge claims [B, M] by row `rows[b]` of the reference. `words`, `sentences`: of the think block.

    The reward is the mix (factuality, completeness, effectiveness; weights need not sum to 1) with guarded factuality,
    times the guards' factors.
    """
    report, goal = take(reference.report, rows), wanted(reference, rows)
    verdicts = verify.verify(tables, claims, report)
    asked_for = verify.stated(tables, claims, goal)
    useful = verdicts.scored & (verdicts.correct > 0) & (verdicts.explicit | asked_for)
    plain = factuality(verdicts)
    complete = completeness(tables, claims, goal)
    effective = effectiveness(claims, useful, sentences)

    correct = verdicts.correct
    if guards.contradictions:
        two_films = jnp.asarray(reference.task)[rows] == TASKS.index("temporal")
        correct = jnp.where(verify.contradictory(tables, claims, two_films), 0.0, correct)
    trivial = (claims.polarity == 0) & ~verdicts.explicit & ~asked_for & (correct > 0)
    weight = verdicts.weight * jnp.where(trivial, guards.trivial, 1.0)
    guarded = _ratio((weight * correct).sum(1), weight.sum(1))

    claim_count = verdicts.scored.sum(1).astype(jnp.float32)
    distinct = verdicts.weight.sum(1)
    factor = _covered(tables, claims, report, guards.coverage)
    factor = factor * jnp.minimum(_ratio(distinct * guards.repeats, claim_count), 1.0)
    spare = words.astype(jnp.float32) / jnp.maximum(claim_count, 1.0) - 1.2
    factor = factor * jnp.clip(spare / max(guards.words_per_claim - 1.2, 1e-6), 0.0, 1.0)
    factor = factor * jnp.minimum(words.astype(jnp.float32) / max(guards.words, 1e-6), 1.0)
    alarms = jnp.where(verdicts.scored & (claims.polarity == 1) & (correct == 0), verdicts.weight, 0.0).sum(1)
    factor = factor * jnp.minimum(guards.alarms / jnp.maximum(alarms, 1e-6), 1.0)
    factor = factor * jnp.minimum(effective / max(guards.padding, 1e-6), 1.0)
    total = sum(mix)
    mixed = sum(share * term for share, term in zip(mix, (guarded, complete, effective), strict=True)) / max(
        total, 1e-6
    )

    same_step = (
        (claims.step[:, :, None] == claims.step[:, None]) & verdicts.scored[:, None] & verdicts.scored[:, :, None]
    )
    value = _ratio(
        jnp.where(same_step, (weight * correct)[:, None], 0.0).sum(2), jnp.where(same_step, weight[:, None], 0.0).sum(2)
    )
    return Process(plain, complete, effective, factor * mixed, value, verdicts.scored & ~trivial, verdicts)


def _covered(tables: Relations, claims: Findings, report: Findings, stake: float) -> Float[Array, " B"]:
    """1 less the stake's share of the report's present findings that the claims do not state (1 if it has none)."""
    present = verify.scored(tables, report) & (report.polarity == 1) & (report.concept != verify.NO_FINDING)
    weight = verify.share(report, present)
    missed = _ratio(jnp.where(verify.stated(tables, report, claims), 0.0, weight).sum(1), weight.sum(1))
    return 1.0 - stake * missed


def _strictly_before(size: int) -> Bool[Array, "1 M M"]:
    return jnp.tril(jnp.ones((size, size), bool), -1)[None]


def _ratio(top: Float[Array, "..."], bottom: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.where(bottom > 0, top / jnp.where(bottom > 0, bottom, 1.0), 0.0).astype(jnp.float32)
