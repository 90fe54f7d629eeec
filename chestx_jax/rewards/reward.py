"""The reward: the weighted mean of format, accuracy and process terms of sampled tokens, one pure function in jit."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.config import bounded
from chestx_jax.errors import UserError
from chestx_jax.findings import Findings, RewardTargets, tokens
from chestx_jax.findings.jit_arrays import JAX
from chestx_jax.findings.words import Words
from chestx_jax.lexicon import tags
from chestx_jax.lexicon.tables import Relations
from chestx_jax.lexicon.token_tables import Tables
from chestx_jax.rewards import outcome
from chestx_jax.rewards.process import completeness, effectiveness, factuality, target_findings
from chestx_jax.rewards.value import ValueConfig, claim_values, on_current_film, report_worth
from chestx_jax.rewards.verify import verify
from chestx_jax.types import Completion, Scores, StepCredit

_NEED_REPORT = ("factuality", "completeness", "effectiveness", "process", "gain", "false")


@dataclass(frozen=True)
class RewardConfig:
    """Weights and options of the reward. The sequence reward is the weighted mean of its terms."""

    format: float = bounded(1.0, min=0.0)
    accuracy: float = bounded(1.0, min=0.0)
    process: float = bounded(1.0, min=0.0)
    # "additive": what the claims are worth (`value`); "paper": the mean truth of the claims
    rule: Literal["additive", "paper"] = "additive"
    value: ValueConfig = field(default_factory=ValueConfig)
    priors: str = ""  # a table of priors, relative to the data root; empty: counted on the stage's own records
    credit: Literal["sequence", "step"] = "sequence"  # "step": what a step's claims are worth is credited to its tokens
    slots: int = bounded(64, min=1)  # findings read of a completion; those beyond are counted as overflow
    partial_format: bool = False
    exact_labels: bool = False  # anomaly task: all or nothing instead of F1

    def __post_init__(self) -> None:
        weights = (self.format, self.accuracy, self.process)
        if not any(weights):
            raise UserError(f"The reward's weights (format, accuracy, process) are {weights}: raise one above 0.")
        if self.credit == "step" and not self.process:
            raise UserError("credit=step pays nothing while the weight process is 0: raise it, or set credit=sequence.")
        if self.credit == "step" and self.rule == "paper":
            raise UserError(
                "credit=step shares out what claims are worth, which rule=paper does not: set credit=sequence."
            )


@partial(jax.jit, static_argnums=0)
def score(config: RewardConfig, tables: Tables, completion: Completion, targets: RewardTargets) -> Scores:
    """Score B completions of L tokens against the targets of N prompts.

    `sequence` is the weighted mean of the terms that apply: a sample without a report has no process term, whose weight
    the others share. `terms`: format, accuracy, process by `config.rule`, the value's gain over silence, factuality,
    completeness, effectiveness, findings (number of scored claims), false (those that the report does not support),
    overflow; `masks` say where a term applies. With step credit, `steps` holds, for each step of the think block with a
    scored claim, the weighted value of its claims; the process term stays in the sequence reward.
    """
    words, matches, claims = tokens.read(tables, completion.ids, completion.length, config.slots, think_only=True)
    answer = outcome.read_answer(tables, words, matches)
    targets = jax.tree.map(jnp.asarray, targets)
    process = _process(config, tables.relations, claims, targets, completion.prompt)
    zone = tables.tag_zone[words.end]
    think_closed_B = (zone == tags.BETWEEN) | (zone == tags.ANSWER) | (zone == tags.AFTER)
    has_report_B = targets.has_report[completion.prompt]
    always_B = jnp.ones_like(has_report_B)
    terms = {
        "format": outcome.format_term(answer, targets, completion, config.partial_format),
        "accuracy": outcome.outcome_term(answer, targets, completion, config.exact_labels),
        **{name: jnp.where(think_closed_B, term, 0.0) for name, term in process.terms.items()},
        "overflow": claims.overflow.astype(jnp.float32),
    }
    masks = {name: has_report_B if name in _NEED_REPORT else always_B for name in terms}
    term_weights = {"format": config.format, "accuracy": config.accuracy, "process": config.process}
    weights = {name: jnp.where(masks[name], weight, 0.0) for name, weight in term_weights.items()}
    total_weight = jnp.maximum(jnp.stack([*weights.values()]).sum(0), 1e-6)
    sequence = jnp.stack([weights[name] * terms[name] for name in term_weights]).sum(0) / total_weight
    if config.credit == "step":
        share_B = jnp.where(has_report_B & think_closed_B, config.process / total_weight, 0.0)
        steps = step_credit(words, claims.step, process.scored, process.value * share_B[:, None], completion)
    else:
        steps = no_credit(completion)
    return Scores(sequence.astype(jnp.float32), steps, terms, masks)


def no_credit(completion: Completion) -> StepCredit:
    """Of completions that are paid by the sequence alone."""
    nothing = jnp.zeros(completion.ids.shape, bool)
    return StepCredit(nothing.astype(jnp.float32), nothing, nothing)


class _Process(NamedTuple):
    terms: dict[str, Float[Array, " B"]]
    value: Float[Array, "B M"]  # of each claim
    scored: Bool[Array, "B M"]


def _process(
    config: RewardConfig,
    relations: Relations,
    claims: Findings,
    targets: RewardTargets,
    prompt_B: Int[Array, " B"],
) -> _Process:
    """The process terms of claims [B, M]; what depends on the N prompts alone is computed once for each."""

    def of_prompt(tree):
        return jax.tree.map(lambda leaf: leaf[prompt_B], tree)

    report, stated = of_prompt(targets.report), of_prompt(target_findings(targets))
    worth = report_worth(config.value, relations, targets.report, targets.stakes)
    claims = on_current_film(claims, of_prompt(targets.two_films))
    values = claim_values(config.value, relations, claims, report, of_prompt(targets.stakes), of_prompt(worth))
    verdicts = verify(relations, claims, report)
    truth = factuality(verdicts)
    terms = {
        "process": truth if config.rule == "paper" else values.process,
        "gain": values.gain,
        "factuality": truth,
        "completeness": completeness(relations, claims, stated),
        "effectiveness": effectiveness(relations, claims, stated),
        "findings": verdicts.scored.sum(1).astype(jnp.float32),
        "false": values.false.sum(1).astype(jnp.float32),
    }
    return _Process(terms, values.value, verdicts.scored)


def step_credit(
    words: Words,
    step_BxM: Int[Array, "B M"],
    scored_BxM: Bool[Array, "B M"],
    value_BxM: Float[Array, "B M"],
    completion: Completion,
) -> StepCredit:
    """The sum of each sentence's claim values on all of its tokens, for sentences with a scored claim."""
    texts, length = completion.ids.shape
    row = jnp.broadcast_to(jnp.arange(texts)[None], words.word.shape)
    starts_BxL = jnp.zeros((texts, length), jnp.int32)
    starts_BxL = starts_BxL.at[row, jnp.where(words.boundary, words.first, length)].add(1, mode="drop")
    sentence_BxL = JAX.sum_so_far(starts_BxL.T).T - 1
    row, of_claim = jnp.arange(texts)[:, None], jnp.where(scored_BxM, step_BxM, length)
    value = jnp.zeros((texts, length)).at[row, of_claim].add(value_BxM, mode="drop")
    has_claim = jnp.zeros((texts, length), bool).at[row, of_claim].set(True, mode="drop")
    written = jnp.arange(length)[None] < completion.length[:, None]
    credited = jnp.take_along_axis(has_claim, jnp.maximum(sentence_BxL, 0), 1) & (sentence_BxL >= 0) & written
    goes_on = credited[:, 1:] & (sentence_BxL[:, 1:] == sentence_BxL[:, :-1])
    value = jnp.where(credited, jnp.take_along_axis(value, jnp.maximum(sentence_BxL, 0), 1), 0.0)
    return StepCredit(value, credited, credited & ~jnp.pad(goes_on, ((0, 0), (0, 1))))
