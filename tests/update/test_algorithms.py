"""The table of algorithms in docs/recipe.md: what each row's settings do to the gradient is what its paper says.

The policy is a table of logits for each token of six completions, in two groups; a paper's objective is written down as
loops over completions and tokens, to be maximised.
"""

import ast
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chestx_jax.config import to_dataclass
from chestx_jax.recipes import GrpoConfig
from chestx_jax.rewards.overlong import length_penalty
from chestx_jax.types import Images, Prompts, Rollout, StepCredit, Tokens
from chestx_jax.update.advantages import token_advantages
from chestx_jax.update.logprobs import TokenStats
from chestx_jax.update.micro_batches import Bucket, Experience, Logprobs, select
from chestx_jax.update.policy_objective import policy_objective
from tests.helpers.paths import ROOT

N, G, L, V = 2, 3, 5, 7  # groups, completions of each, most tokens of one, vocabulary
B = N * G


class World(NamedTuple):
    """What was sampled, and what it is worth; numpy arrays."""

    ids: np.ndarray
    length: np.ndarray
    old: np.ndarray  # log-probs: of the trainer before the first update, of the sampler, of the reference model
    sampled: np.ndarray
    reference: np.ndarray
    rewards: np.ndarray
    value: np.ndarray  # of steps, on each of their tokens
    ends: np.ndarray  # the last token of each step


def make_world(seed):
    """The policy's logits and a world in which every clip, cap and clamp is reached and not reached."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(B, L, V)).astype(np.float32)
    ids = rng.integers(0, V, (B, L))
    now = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), ids[..., None], -1)[..., 0]
    apart = lambda scale: rng.normal(0, scale, (B, L)).astype(np.float32)  # noqa: E731
    old = now + apart(0.5)
    old[:, 0] += np.tile([-2.0, 2.0], B // 2).astype(np.float32)  # ratios beyond the dual clip, and CISPO's bound
    reference = now + apart(0.5)
    reference[:, 1] += 4.0  # k3 beyond its clamp
    return logits, World(
        ids=ids,
        length=np.concatenate([[L, 1], rng.integers(2, L + 1, B - 2)]).astype(np.int32),
        old=old,
        sampled=old + apart(0.6),
        reference=reference,
        rewards=rng.uniform(0, 1, B).astype(np.float32),
        value=np.repeat(rng.normal(size=(B, 1)), L, axis=1).astype(np.float32),
        ends=np.arange(L)[None] == 0,
    )


# Ours


def settings_of(text):
    """`a.b=c` in backquotes as nested dicts."""
    nested = {}
    for path, value in re.findall(r"`([\w.]+)=([^`]+)`", text):
        group = nested
        *groups, name = path.split(".")
        for key in groups:
            group = group.setdefault(key, {})
        group[name] = ast.literal_eval(value) if re.match(r"[\d.(]", value) else value
    return nested


def table():
    """The rows of the table, by the algorithm's name."""
    section = (ROOT / "docs/recipe.md").read_text().split("\n## Algorithms\n")[1].split("\n## ")[0]
    (lines,) = (block.splitlines() for block in section.split("\n\n") if block.startswith("| algorithm"))
    rows = [line.strip("|").split("|") for line in lines[2:]]
    return {name.strip(): settings_of(settings) for name, settings, *_ in rows}


def our_gradient(settings, logits, world):
    """Of the loss, by the functions that the loop runs."""
    stage = to_dataclass(GrpoConfig, settings)
    inside = np.arange(L)[None] < world.length[:, None]
    steps = StepCredit(*map(jnp.asarray, (world.value * inside, inside, world.ends & inside)))
    rewards = jnp.asarray(world.rewards) - length_penalty(jnp.asarray(world.length), L, stage.overlong)
    advantages, kept = token_advantages(rewards, steps, G, stage.advantages)
    row, half = np.zeros((N, 1), np.int32), (0.5, 0.5, 0.5)
    prompts = Prompts(
        Tokens(row, row, np.zeros((N, 1, 3), np.int32), row),
        Images(np.zeros((N, 1, 1, 3), np.uint8), np.zeros((N, 1, 1, 2), np.int32), row[..., None] > 0, half, half),
        row[:, 0],
        row[:, 0],
    )
    rollout = Rollout(world.ids, world.length, world.sampled, world.length < L)
    experience = jax.tree.map(jnp.asarray, Experience(prompts, rollout, advantages, kept))
    aggregate, masked = stage.policy.aggregate, stage.overlong.rule == "mask"
    part = select(aggregate, masked, 1, Bucket(1, 1, L), experience, jnp.arange(N, dtype=jnp.int32))
    logprobs = Logprobs(
        jnp.asarray(world.reference) if stage.policy.kl_weight else None,
        jnp.asarray(world.old) if stage.needs_old_logprobs else None,
    )
    loss = lambda logits: policy_objective(stage.policy, TokenStats(*of_policy(logits, world)), part, logprobs)[0]  # noqa: E731
    return jax.grad(loss)(jnp.asarray(logits))


def of_policy(logits, world):
    """Log-probs of the sampled tokens, entropies, and log of the partition functions."""
    logprobs = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(logprobs, world.ids[..., None], -1)[..., 0]
    return chosen, -jnp.sum(jnp.exp(logprobs) * logprobs, -1), jax.nn.logsumexp(logits, -1)


# The papers


def standardised(rewards):
    """GRPO's advantage: the distance from the group's mean, in standard deviations (n - 1) of the group."""
    groups = rewards.reshape(N, G)
    centred = groups - groups.mean(1, keepdims=True)
    spread = groups.std(1, ddof=1, keepdims=True)
    return np.where(spread > 1e-6, centred / np.maximum(spread, 1e-6), 0.0).ravel()


def centred(rewards):
    groups = rewards.reshape(N, G)
    return (groups - groups.mean(1, keepdims=True)).ravel()


def ppo(ratio, advantage, low=0.2, high=0.2, dual=None):
    """PPO's clipped objective of one token."""
    smaller = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - low, 1 + high) * advantage)
    return jnp.maximum(smaller, dual * advantage) if dual and advantage < 0 else smaller


def k3(logprob, reference):
    return jnp.exp(reference - logprob) - (reference - logprob) - 1


def tokens(world, rows=range(B)):
    return [(i, t) for i in rows for t in range(world.length[i])]


def release(world, logp, entropy, advantages=None, old=None, weight=None, clamp=np.inf):
    """The release's: mean over tokens, dual clip 3, k3 and entropy at 0.001 each; ratio 1 with one update a batch."""
    advantages = np.repeat(standardised(world.rewards)[:, None], L, 1) if advantages is None else advantages
    old = jax.lax.stop_gradient(logp) if old is None else old
    terms = [
        ppo(jnp.exp(logp[i, t] - old[i, t]), advantages[i, t], dual=3.0) * (1.0 if weight is None else weight[i, t])
        - 0.001 * jnp.minimum(k3(logp[i, t], world.reference[i, t]), clamp)
        + 0.001 * entropy[i, t]
        for i, t in tokens(world)
    ]
    return sum(terms) / len(terms)


def mini_batched(world, logp, entropy):
    return release(world, logp, entropy, old=world.old)


def grpo(world, logp, entropy):
    """DeepSeekMath, arXiv 2402.03300, equation 3: the mean over completions of the mean over their tokens."""
    advantages, total = standardised(world.rewards), 0.0
    for i in range(B):
        of_tokens = [
            ppo(jnp.exp(logp[i, t] - world.old[i, t]), advantages[i]) - 0.04 * k3(logp[i, t], world.reference[i, t])
            for t in range(world.length[i])
        ]
        total += sum(of_tokens) / len(of_tokens)
    return total / B


def dr_grpo(world, logp, entropy):
    """arXiv 2503.20783, section 3.2: neither the length nor the standard deviation divides; up to the constant L."""
    advantages = centred(world.rewards)
    return sum(ppo(jnp.exp(logp[i, t] - world.old[i, t]), advantages[i]) for i, t in tokens(world)) / (B * L)


def rloo(world, logp, entropy):
    """arXiv 2402.14740, section 3.1: REINFORCE, the others of the group being the baseline; up to the constant L."""
    total = 0.0
    for i in range(B):
        group = [j for j in range(i // G * G, i // G * G + G) if j != i]
        advantage = world.rewards[i] - world.rewards[group].mean()
        total += advantage * sum(logp[i, t] for t in range(world.length[i]))
    return total / (B * L)


def gspo(world, logp, entropy):
    """arXiv 2507.18071, equations 5 and 7."""
    advantages, total = standardised(world.rewards), 0.0
    for i in range(B):
        inside = slice(0, world.length[i])
        ratio = jnp.exp(jnp.mean(logp[i, inside] - world.old[i, inside]))
        total += ppo(ratio, advantages[i], low=3e-4, high=4e-4)
    return total / B


def dapo(world, logp, entropy):
    """arXiv 2503.14476, equations 8 and 13: a group whose rewards are equal is not in the batch."""
    rewards = world.rewards - (world.length == L)  # a fifth of the limit is one token
    advantages = standardised(rewards)
    used = [i for i in range(B) if np.ptp(rewards.reshape(N, G)[i // G]) > 1e-6]
    terms = [ppo(jnp.exp(logp[i, t] - world.old[i, t]), advantages[i], high=0.28) for i, t in tokens(world, used)]
    return sum(terms) / len(terms)


def cispo(world, logp, entropy):
    """MiniMax-M1, arXiv 2506.13585, equations 4 and 5, with no lower bound."""
    advantages = standardised(world.rewards)
    terms = [
        jnp.minimum(jax.lax.stop_gradient(jnp.exp(logp[i, t] - world.old[i, t])), 5.0) * advantages[i] * logp[i, t]
        for i, t in tokens(world)
    ]
    return sum(terms) / len(terms)


def token_truncated(world, logp, entropy):
    weight = np.minimum(np.exp(world.old - world.sampled), 2.0)
    return release(world, logp, entropy, old=world.old, weight=weight)


def sequence_truncated(world, logp, entropy):
    drift = [(world.old - world.sampled)[i, : world.length[i]].sum() for i in range(B)]
    weight = np.minimum(np.exp(drift), 2.0)
    return release(world, logp, entropy, old=world.old, weight=np.repeat(weight[:, None], L, 1))


def against_sampler(world, logp, entropy):
    return release(world, logp, entropy, old=world.sampled)


def clamped(world, logp, entropy):
    return release(world, logp, entropy, clamp=10.0)


def step_credit(world, logp, entropy):
    """The credit over its root mean square on the group's tokens, half of it added."""
    advantages = np.repeat(standardised(world.rewards)[:, None], L, 1)
    for group in range(N):
        own = tokens(world, range(group * G, group * G + G))
        rms = np.sqrt(np.mean([world.value[i, t] ** 2 for i, t in own]))
        for i, t in own:
            advantages[i, t] += 0.5 * world.value[i, t] / rms
    return release(world, logp, entropy, advantages)


def process_supervision(world, logp, entropy):
    """DeepSeekMath, section 4.1.3, added: each step's normalised credit on all tokens up to its end."""
    advantages = np.repeat(standardised(world.rewards)[:, None], L, 1)
    for group in range(N):
        rows = range(group * G, group * G + G)
        ends = [(i, t) for i, t in tokens(world, rows) if world.ends[0, t]]
        values = np.array([world.value[i, t] for i, t in ends])
        for i, t in ends:
            advantages[i, : t + 1] += (world.value[i, t] - values.mean()) / values.std()
    return release(world, logp, entropy, advantages)


PAPERS = {
    "GRPO, as the paper's release computes it": release,
    "the same with several optimizer steps a batch": mini_batched,
    "GRPO (DeepSeekMath, arXiv 2402.03300)": grpo,
    "Dr.GRPO (arXiv 2503.20783)": dr_grpo,
    "RLOO (arXiv 2402.14740)": rloo,
    "GSPO (arXiv 2507.18071)": gspo,
    "DAPO (arXiv 2503.14476)": dapo,
    "CISPO (MiniMax-M1, arXiv 2506.13585)": cispo,
    "truncated importance sampling, by token": token_truncated,
    "truncated importance sampling, by sequence": sequence_truncated,
    "ratio to the sampler's log-probs": against_sampler,
    "k3 with a clamp": clamped,
    "step credit (the phantom job)": step_credit,
    "process supervision (DeepSeekMath, section 4.1.3), added": process_supervision,
}


def test_the_table_is_what_is_tested():
    assert list(table()) == list(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_the_gradient_is_the_papers(name):
    settings, paper = table()[name], PAPERS[name]
    for seed in range(3):
        logits, world = make_world(seed)
        if seed == 2:  # a group of equal rewards, none of its completions overlong
            world.rewards[G:], world.length[G:] = 0.4, np.minimum(world.length[G:], L - 1)
        ours = our_gradient(settings, logits, world)
        theirs = jax.grad(lambda x, world=world: paper(world, *of_policy(x, world)[:2]))(jnp.asarray(logits))
        np.testing.assert_allclose(ours, -theirs, rtol=2e-3, atol=2e-6, err_msg=name)
        if settings:
            assert np.abs(ours - our_gradient({}, logits, world)).max() > 1e-5
