"""The mixed reward: masks, weights, credit by step, metrics, and rewards of one's own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chestx_jax import lexicon
from chestx_jax.errors import UserError
from chestx_jax.lexicon.vocabulary import Relations
from chestx_jax.lexicon.vocabulary import relations as tables_of
from chestx_jax.rewards.combine import RewardConfig, score
from chestx_jax.rewards.metrics import group_metrics
from chestx_jax.rewards.process import recall
from chestx_jax.types import Completion, Reference, Scores

WORDS = [bytes([byte]) for byte in range(256)]
REPORT = "The heart is enlarged. Small left pleural effusion. No pneumothorax."
TEXTS = (
    "<think> The heart is enlarged. There is a fracture of a rib. We look at the bones. </think><answer> A </answer>",
    "<think> The heart is normal. There is a left pleural effusion. No pneumothorax. </think><answer> B </answer>",
)


def completion(texts=TEXTS, prompt=0) -> Completion:
    data = [text.encode() for text in texts]
    ids = np.zeros((len(data), max(map(len, data)) + 3), np.int32)
    for row, item in enumerate(data):
        ids[row, : len(item)] = list(item)
    length = np.asarray([len(item) for item in data], np.int32)
    return Completion(ids=ids, length=length, prompt=np.full(len(data), prompt, np.int32))


@pytest.fixture(scope="module")
def tables():
    return lexicon.tables(lexicon.load(), WORDS)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return lexicon.reference(
        lexicon.load(), [[REPORT], []], [["The heart is enlarged."], []], ["A", "A"], ["binary"] * 2, 16
    )


def test_terms_follow_the_rules(tables, reference):
    terms = jax.device_get(score(RewardConfig(slots=16), tables, completion(), reference)).terms
    np.testing.assert_allclose(terms["factuality"], [1 / 2, 2 / 3], atol=1e-6)
    np.testing.assert_allclose(terms["completeness"], [1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(terms["effectiveness"], [1 / 3, 2 / 3], atol=1e-6)
    assert terms["accuracy"].tolist() == [1.0, 0.0]


def test_recall_credits_what_is_weighed():
    loaded, claims = lexicon.load(), ["Edema.", "No edema.", "Look for edema.", "Mass."]
    found, wanted = lexicon.findings(loaded, claims, 4), lexicon.findings(loaded, ["Edema."] * 4, 4)
    relations = Relations(**tables_of(loaded))
    np.testing.assert_allclose(recall(relations, found, wanted), [1.0, 0.5, 0.5, 0.0])
    refused = lexicon.findings(loaded, ["No edema."] * 4, 4)  # weighed and never told: denied
    np.testing.assert_allclose(recall(relations, found, refused), [0.5, 1.0, 1.0, 0.0])


def test_without_a_report_the_weight_goes_to_the_other_terms(tables, reference):
    result = jax.device_get(score(RewardConfig(slots=16), tables, completion(prompt=1), reference))
    assert not result.masks["process"].any()
    np.testing.assert_allclose(result.sequence, [1.0, 0.5])


def test_step_credit_lands_on_the_tokens_of_its_sentence(tables, reference):
    by_step = jax.device_get(score(RewardConfig(slots=16, credit="step"), tables, completion(), reference))
    paid = bytes(byte for byte, credit in zip(TEXTS[0].encode(), by_step.credit[0], strict=False) if credit > 0)
    assert paid.strip() == b"The heart is enlarged."
    assert by_step.credit[0].max() == pytest.approx(1 / 3)
    whole = jax.device_get(score(RewardConfig(slots=16), tables, completion(), reference))
    np.testing.assert_array_equal(by_step.sequence, whole.sequence)
    assert not whole.credited.any()


def test_a_wrong_step_is_credited_with_0_and_a_silent_or_trivial_one_not_at_all(tables):
    """Of four steps only the two that the report speaks about take part in what the group is compared by."""
    loaded = lexicon.load()
    report = lexicon.reference(loaded, [["Cardiomegaly. No pleural effusion."]], [[]], ["A"], ["binary"], 16)
    steps = ("The heart is enlarged.", "There is a pleural effusion.", "There is no pneumothorax.", "So it is (A).")
    text = f"<think>{' '.join(steps)}</think><answer>A</answer>".encode()
    ids = np.frombuffer(text, np.uint8).astype(np.int32)[None]
    given = Completion(ids, np.array([ids.shape[1]], np.int32), np.zeros(1, np.int32))
    scores = jax.device_get(score(RewardConfig(slots=16, credit="step"), tables, given, report))
    credited = bytes(byte for byte, yes in zip(text, scores.credited[0], strict=True) if yes)
    assert credited.strip() == b"The heart is enlarged. There is a pleural effusion."
    right = bytes(byte for byte, value in zip(text, scores.credit[0], strict=True) if value > 0)
    assert right.strip() == b"The heart is enlarged."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"credit": "token"}, "credit"),
        ({"format": -1.0}, "weights"),
        ({"factuality": 0.0}, "mixes nothing"),
        ({"slots": 0}, "slots"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        RewardConfig(**options)


def test_group_metrics_show_spread_and_flat_groups():
    values = jnp.asarray([0.0, 1.0, 0.5, 0.5])
    scores = Scores(
        sequence=values,
        credit=jnp.zeros((4, 2)),
        credited=jnp.zeros((4, 2), bool),
        terms={"process": values},
        masks={"process": jnp.asarray([True, True, False, False])},
    )
    metrics = jax.jit(partial(group_metrics, group_size=2))(scores)
    assert float(metrics["reward/total/mean"]) == 0.5
    assert float(metrics["reward/total/flat"]) == 0.5
    assert float(metrics["reward/process/std"]) == 0.5
    assert float(metrics["reward/process/flat"]) == 0.0


# A reward of one's own is a pure function (Completion, Reference) -> Scores.


def brevity(completion: Completion, reference: Reference) -> Scores:
    """1 for completions of at most 90 tokens."""
    value = (jnp.asarray(completion.length) <= 90).astype(jnp.float32)
    everywhere = jnp.ones_like(value, bool)
    nowhere = jnp.zeros(completion.ids.shape, jnp.float32)
    return Scores(value, nowhere, nowhere > 0, {"brevity": value}, {"brevity": everywhere})


def on_host(function, name: str):
    """A reward from a host function of numpy arrays (ids, length) -> float32[B], one batched call a step.

    The call is asynchronous: what does not depend on its result goes on meanwhile.
    """

    def reward(completion: Completion, reference: Reference) -> Scores:
        shape = jax.ShapeDtypeStruct(completion.length.shape, jnp.float32)
        value = jax.pure_callback(function, shape, completion.ids, completion.length)
        everywhere = jnp.ones_like(value, bool)
        nowhere = jnp.zeros(completion.ids.shape, jnp.float32)
        return Scores(value, nowhere, nowhere > 0, {name: value}, {name: everywhere})

    return reward


def test_a_reward_of_ones_own_joins_the_mix(tables, reference):
    spelled = on_host(lambda ids, length: (np.asarray(ids) == ord("x")).any(1).astype(np.float32), "spelled")

    @jax.jit
    def mixed(tables, completion, reference):
        parts = [
            score(RewardConfig(slots=16), tables, completion, reference),
            brevity(completion, reference),
            spelled(completion, reference),
        ]
        return sum(part.sequence for part in parts) / len(parts)

    values = np.asarray(mixed(tables, completion(), reference))
    alone = np.asarray(score(RewardConfig(slots=16), tables, completion(), reference).sequence)
    short = np.asarray(completion().length) <= 90
    np.testing.assert_allclose(values, (alone + short + np.asarray([0.0, 1.0])) / 3, atol=1e-6)
