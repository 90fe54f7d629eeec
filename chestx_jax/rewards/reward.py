"""The reward: format, accuracy and process terms of sampled tokens, mixed. One pure function, one compile a shape."""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from chestx_jax.errors import UserError
from chestx_jax.lexicon import tags
from chestx_jax.lexicon.token_tables import Tables
from chestx_jax.rewards import guarded, outcome, scan, scopes
from chestx_jax.rewards.guarded import Guards
from chestx_jax.rewards.process import process
from chestx_jax.rewards.scan import Words
from chestx_jax.types import Completion, Findings, RewardTargets, Scores


@dataclass(frozen=True)
class RewardConfig:
    """Weights and options of the reward. The sequence reward is the mean of its terms by weight."""

    format: float = 1.0
    accuracy: float = 1.0
    process: float = 1.0
    factuality: float = 1.0  # the process term's own mix
    completeness: float = 0.0
    effectiveness: float = 0.0
    guards: Guards = field(default_factory=Guards)
    credit: str = "sequence"  # "step": each step's score is paid to its own tokens as well
    slots: int = 64  # findings of a completion; more are counted as overflow
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
def score(config: RewardConfig, tables: Tables, completion: Completion, reference: RewardTargets) -> Scores:
    """Score B completions of L tokens against N prompts' references.

    `sequence` is the weighted mean of the terms that apply (a sample without a report has no process term; its weight
    goes to the others). `terms`: format, accuracy, factuality, completeness, effectiveness, process (the guarded mix),
    findings (number of scored claims), overflow; `masks` say where a term applies. With step credit, `credit` holds
    what each step of the think block that claims something contributes to the process term, weighted, on the step's own
    tokens. The process term stays in the sequence reward.
    """
    words = scan.words(tables, completion.ids, completion.length)
    found = scopes.matches(tables, words)
    claims = scopes.findings(tables, words, found, config.slots, think_only=True)
    claims = _in_memory(claims)
    answer = outcome.read(tables, words, found)
    thinking = words.word & (words.zone == tags.THINK)
    mix = (config.factuality, config.completeness, config.effectiveness)
    size = (thinking.sum(0), (thinking & words.boundary).sum(0))  # words and sentences
    judged = process(tables, claims, reference, completion.prompt, *size, mix, config.guards)
    zone = tables.tag_zone[words.end]
    thought = (zone == tags.BETWEEN) | (zone == tags.ANSWER) | (zone == tags.AFTER)
    has_report = jnp.asarray(reference.has_report)[completion.prompt]
    everywhere = jnp.ones_like(has_report)
    terms = {
        "format": outcome.format_term(answer, reference, completion, config.partial_format),
        "accuracy": outcome.outcome(answer, reference, completion, config.exact_labels),
        "factuality": jnp.where(thought, judged.factuality, 0.0),
        "completeness": jnp.where(thought, judged.completeness, 0.0),
        "effectiveness": jnp.where(thought, judged.effectiveness, 0.0),
        "process": jnp.where(thought, judged.reward, 0.0),
        "findings": judged.verdicts.scored.sum(1).astype(jnp.float32),
        "overflow": claims.overflow.astype(jnp.float32),
    }
    processed = ("factuality", "completeness", "effectiveness", "process")
    masks = {name: has_report if name in processed else everywhere for name in terms}
    paid = {"format": config.format, "accuracy": config.accuracy, "process": config.process}
    weights = {name: jnp.where(masks[name], weight, 0.0) for name, weight in paid.items()}
    whole = jnp.maximum(jnp.stack([*weights.values()]).sum(0), 1e-6)
    sequence = jnp.stack([weights[name] * terms[name] for name in paid]).sum(0) / whole
    if config.credit == "step":
        longs = jnp.take_along_axis(sentence_words(words, thinking), claims.step, 1)
        value = guarded.contributions(judged.pairs, claims.step, longs, *size, mix, config.guards)
        value, claiming = step_credit(words, claims.step, judged.verdicts.scored, value, completion.ids.shape[1])
        written = jnp.arange(completion.ids.shape[1])[None] < completion.length[:, None]
        credited = claiming & written & (has_report & thought)[:, None]
        credit = jnp.where(credited, value * (config.process / whole)[:, None], 0.0)
    else:
        credit, credited = jnp.zeros(completion.ids.shape, jnp.float32), jnp.zeros(completion.ids.shape, bool)
    return Scores(sequence.astype(jnp.float32), credit, credited, terms, masks)


def _in_memory(claims: Findings) -> Findings:
    """The same findings, written out once.

    XLA for CPUs drops optimization barriers before it fuses, and then gathers every claim anew from the text's arrays
    for each pair of claim and evidence, which takes three times as long as reading the text. A loop is not fused: this
    one takes a single turn, which the compiler cannot know.
    """

    def turn(state: tuple[Array, Findings]) -> tuple[Array, Findings]:
        count, held = state
        return count + 1, jax.tree.map(lambda leaf: leaf | (count > 1).astype(leaf.dtype), held)

    once = (claims.overflow[:1].min() >= 0).astype(jnp.int32)
    return jax.lax.while_loop(lambda state: state[0] < once, turn, (jnp.int32(0), claims))[1]


def sentence_words(words: Words, counts: Bool[Array, "T B"]) -> Int[Array, "B T"]:
    """How many of the counted words each sentence has."""
    sentence = jnp.maximum(scopes.totals(words.boundary.astype(jnp.int32)) - 1, 0).T
    rows = jnp.broadcast_to(jnp.arange(sentence.shape[0])[:, None], sentence.shape)
    return jnp.zeros(sentence.shape, jnp.int32).at[rows, sentence].add(counts.T.astype(jnp.int32))


def step_credit(
    words: Words, step: Int[Array, "B M"], claims: Bool[Array, "B M"], value: Float[Array, "B M"], width: int
) -> tuple[Float[Array, "B L"], Bool[Array, "B L"]]:
    """Each claim's step value on all tokens of its sentence, and which tokens are of a sentence that claims something.

    Claims of one sentence have one value.
    """
    rows = jnp.broadcast_to(jnp.arange(words.word.shape[1])[None], words.word.shape)
    starts = jnp.zeros((words.word.shape[1], width), jnp.int32)
    starts = starts.at[rows, jnp.where(words.boundary, words.first, width)].add(1, mode="drop")
    sentence = scopes.totals(starts.T).T - 1
    silent = jnp.float32(-jnp.inf)
    values = jnp.full((sentence.shape[0], width + 2), silent)
    at = jnp.arange(sentence.shape[0])[:, None]
    values = values.at[at, jnp.where(claims, step, width + 2)].max(value, mode="drop")
    credit = jnp.where(sentence >= 0, jnp.take_along_axis(values, jnp.clip(sentence, 0, width + 1), 1), silent)
    return jnp.where(credit > silent, credit, 0.0), credit > silent
