"""The reward: the weighted mean of format, accuracy and process terms of sampled tokens, one pure function in jit."""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.config import bounded
from chestx_jax.errors import UserError
from chestx_jax.findings import Findings, RewardTargets, tokens
from chestx_jax.findings.jit_arrays import JAX
from chestx_jax.findings.words import Words
from chestx_jax.lexicon import tags
from chestx_jax.lexicon.token_tables import Tables
from chestx_jax.rewards import guarded, outcome
from chestx_jax.rewards.guarded import Guards
from chestx_jax.rewards.process import process_terms
from chestx_jax.types import Completion, Scores

_NEED_REPORT = ("factuality", "completeness", "effectiveness", "process")


@dataclass(frozen=True)
class RewardConfig:
    """Weights and options of the reward. The sequence reward is the weighted mean of its terms."""

    format: float = bounded(1.0, min=0.0)
    accuracy: float = bounded(1.0, min=0.0)
    process: float = bounded(1.0, min=0.0)
    factuality: float = bounded(1.0, min=0.0)  # the process term's own mix
    completeness: float = bounded(0.0, min=0.0)
    effectiveness: float = bounded(0.0, min=0.0)
    guards: Guards = field(default_factory=Guards)
    credit: str = "sequence"  # "step": each step's contribution is also credited to its own tokens
    slots: int = bounded(64, min=1)  # findings read of a completion; those beyond are counted as overflow
    partial_format: bool = False
    exact_labels: bool = False  # anomaly task: all or nothing instead of F1

    def __post_init__(self) -> None:
        weights = (self.format, self.accuracy, self.process, self.factuality, self.completeness, self.effectiveness)
        if min(weights) < 0 or not any(weights[:3]):
            raise UserError(
                f"Reward weights {weights} must be 0 or more, and one of the first three above 0: raise one."
            )
        if self.process > 0 and not any(weights[3:]):
            raise UserError(
                "The process reward mixes nothing: raise factuality, completeness or effectiveness above 0."
            )
        if self.credit not in ("sequence", "step"):
            raise UserError(f'Reward credit is {self.credit!r}: use "sequence" or "step".')
        if self.slots < 1:
            raise UserError(f"Reward slots is {self.slots}: use at least 1.")


@partial(jax.jit, static_argnums=0)
def score(config: RewardConfig, tables: Tables, completion: Completion, targets: RewardTargets) -> Scores:
    """Score B completions of L tokens against the targets of N prompts.

    `sequence` is the weighted mean of the terms that apply: a sample without a report has no process term, whose weight
    the others share. `terms`: format, accuracy, factuality, completeness, effectiveness, process (the guarded mix),
    findings (number of scored claims), overflow; `masks` say where a term applies. With step credit, `credit` holds the
    weighted contribution to the process term of each step of the think block that has a scored claim, on the step's own
    tokens; the process term stays in the sequence reward.
    """
    words, matches, claims = tokens.read(tables, completion.ids, completion.length, config.slots, think_only=True)
    claims = _materialise(claims)
    answer = outcome.read_answer(tables, words, matches)
    thinking_TxB = words.word & (words.zone == tags.THINK)
    mix = (config.factuality, config.completeness, config.effectiveness)
    words_B, sentences_B = thinking_TxB.sum(0), (thinking_TxB & words.boundary).sum(0)
    process = process_terms(
        tables.relations, claims, targets, completion.prompt, words_B, sentences_B, mix, config.guards
    )
    zone = tables.tag_zone[words.end]
    think_closed_B = (zone == tags.BETWEEN) | (zone == tags.ANSWER) | (zone == tags.AFTER)
    has_report_B = jnp.asarray(targets.has_report)[completion.prompt]
    always_B = jnp.ones_like(has_report_B)
    terms = {
        "format": outcome.format_term(answer, targets, completion, config.partial_format),
        "accuracy": outcome.outcome_term(answer, targets, completion, config.exact_labels),
        "factuality": jnp.where(think_closed_B, process.factuality, 0.0),
        "completeness": jnp.where(think_closed_B, process.completeness, 0.0),
        "effectiveness": jnp.where(think_closed_B, process.effectiveness, 0.0),
        "process": jnp.where(think_closed_B, process.reward, 0.0),
        "findings": process.verdicts.scored.sum(1).astype(jnp.float32),
        "overflow": claims.overflow.astype(jnp.float32),
    }
    masks = {name: has_report_B if name in _NEED_REPORT else always_B for name in terms}
    term_weights = {"format": config.format, "accuracy": config.accuracy, "process": config.process}
    weights = {name: jnp.where(masks[name], weight, 0.0) for name, weight in term_weights.items()}
    total_weight = jnp.maximum(jnp.stack([*weights.values()]).sum(0), 1e-6)
    sequence = jnp.stack([weights[name] * terms[name] for name in term_weights]).sum(0) / total_weight
    if config.credit == "step":
        step_words = jnp.take_along_axis(sentence_words(words, thinking_TxB), claims.step, 1)
        value = guarded.step_contributions(
            process.relations, claims.step, step_words, words_B, sentences_B, mix, config.guards
        )
        scored = process.verdicts.scored
        value, has_claim = step_credit(words, claims.step, scored, value, completion.ids.shape[1])
        written = jnp.arange(completion.ids.shape[1])[None] < completion.length[:, None]
        credited = has_claim & written & (has_report_B & think_closed_B)[:, None]
        credit = jnp.where(credited, value * (config.process / total_weight)[:, None], 0.0)
    else:
        credit, credited = jnp.zeros(completion.ids.shape, jnp.float32), jnp.zeros(completion.ids.shape, bool)
    return Scores(sequence.astype(jnp.float32), credit, credited, terms, masks)


def _materialise(claims: Findings) -> Findings:
    """The same findings, written to memory once.

    XLA for CPUs drops optimization barriers before it fuses, and then gathers every claim again from the text's arrays
    for each pair of claim and evidence, which takes three times as long as reading the text. A loop is not fused; this
    one takes a single turn, which the compiler cannot know.
    """

    def turn(state: tuple[Array, Findings]) -> tuple[Array, Findings]:
        count, findings = state
        return count + 1, jax.tree.map(lambda leaf: leaf | (count > 1).astype(leaf.dtype), findings)

    turns = (claims.overflow[:1].min() >= 0).astype(jnp.int32)
    return jax.lax.while_loop(lambda state: state[0] < turns, turn, (jnp.int32(0), claims))[1]


def sentence_words(words: Words, counted_TxB: Bool[Array, "T B"]) -> Int[Array, "B T"]:
    """Number of counted words of each sentence, by sentence number."""
    sentence = jnp.maximum(JAX.sum_so_far(words.boundary.astype(jnp.int32)) - 1, 0).T
    row = jnp.broadcast_to(jnp.arange(sentence.shape[0])[:, None], sentence.shape)
    return jnp.zeros(sentence.shape, jnp.int32).at[row, sentence].add(counted_TxB.T.astype(jnp.int32))


def step_credit(
    words: Words,
    step_BxM: Int[Array, "B M"],
    scored_BxM: Bool[Array, "B M"],
    value_BxM: Float[Array, "B M"],
    length: int,
) -> tuple[Float[Array, "B L"], Bool[Array, "B L"]]:
    """Each claim's value on all tokens of its sentence, and which tokens belong to a sentence with a scored claim.

    The claims of one sentence must have one value. L = `length` tokens.
    """
    row = jnp.broadcast_to(jnp.arange(words.word.shape[1])[None], words.word.shape)
    starts_BxL = jnp.zeros((words.word.shape[1], length), jnp.int32)
    starts_BxL = starts_BxL.at[row, jnp.where(words.boundary, words.first, length)].add(1, mode="drop")
    sentence_BxL = JAX.sum_so_far(starts_BxL.T).T - 1
    no_claim = jnp.float32(-jnp.inf)
    values = jnp.full((sentence_BxL.shape[0], length + 2), no_claim)
    row = jnp.arange(sentence_BxL.shape[0])[:, None]
    values = values.at[row, jnp.where(scored_BxM, step_BxM, length + 2)].max(value_BxM, mode="drop")
    in_sentence = sentence_BxL >= 0
    sentence_value = jnp.take_along_axis(values, jnp.clip(sentence_BxL, 0, length + 1), 1)
    credit = jnp.where(in_sentence, sentence_value, no_claim)
    return jnp.where(credit > no_claim, credit, 0.0), credit > no_claim
