"""The mixed reward: masks, weights, credit by step, metrics, and custom rewards."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chestx_jax import lexicon
from chestx_jax.config import to_dataclass
from chestx_jax.errors import UserError
from chestx_jax.findings import RewardTargets, extract_batch, reward_targets
from chestx_jax.lexicon.tables import relations
from chestx_jax.rewards import verify
from chestx_jax.rewards.metrics import group_metrics
from chestx_jax.rewards.priors import Priors, Row
from chestx_jax.rewards.process import STATED, effectiveness, efficiency, precision, recall
from chestx_jax.rewards.reward import RewardConfig, no_credit, score
from chestx_jax.rewards.texts import Item, score_texts
from chestx_jax.types import Completion, Scores
from tests.helpers.reward_texts import BYTES, byte_completion

LEXICON = lexicon.load()
RELATIONS = relations(LEXICON)
REPORT = "The heart is enlarged. Small left pleural effusion. No pneumothorax."
TEXTS = (
    "<think> The heart is enlarged. There is a fracture of a rib. We look at the bones. </think><answer> A </answer>",
    "<think> The heart is normal. There is a left pleural effusion. No pneumothorax. </think><answer> B </answer>",
)


def findings(texts, slots):
    return extract_batch(LEXICON, texts, slots)


def completion(texts=TEXTS, prompt=0) -> Completion:
    return byte_completion(texts, [prompt] * len(texts))


@pytest.fixture(scope="module")
def tables():
    return lexicon.compile_tables(LEXICON, BYTES)


@pytest.fixture(scope="module")
def targets() -> RewardTargets:
    return reward_targets(LEXICON, [[REPORT], []], [["The heart is enlarged."], []], ["A", "A"], ["binary"] * 2, 16)


def test_terms_follow_the_rules(tables, targets):
    terms = jax.device_get(score(RewardConfig(slots=16), tables, completion(), targets)).terms
    np.testing.assert_allclose(terms["factuality"], [1 / 2, 2 / 3], atol=1e-6)
    np.testing.assert_allclose(terms["completeness"], [1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(terms["effectiveness"], [1 / 2, 0.0], atol=1e-6)
    assert terms["accuracy"].tolist() == [1.0, 0.0]


def test_recall_credits_hypothetical_mentions():
    mentioned = 1 - STATED
    texts = ["Edema.", "No edema.", "Look for edema.", "Mass."]
    claims, present = findings(texts, 4), findings(["Edema."] * 4, 4)
    np.testing.assert_allclose(recall(RELATIONS, claims, present), [1.0, mentioned, mentioned, 0.0], atol=1e-6)
    absent = findings(["No edema."] * 4, 4)  # what is looked for and never asserted counts as denied
    np.testing.assert_allclose(recall(RELATIONS, claims, absent), [mentioned, 1.0, 1.0, 0.0], atol=1e-6)


def test_effectiveness_counts_no_sentence_twice():
    texts = [
        "Edema. A fracture.",
        "Edema. Edema. Edema. A fracture.",
        "The film is looked at. Edema.",
        "Edema and a fracture.",
        "",
    ]
    values = effectiveness(RELATIONS, findings(texts, 8), findings(["Edema."] * 5, 2))
    np.testing.assert_allclose(values, [0.5, 0.5, 1.0, 0.5, 0.0])


def test_efficiency_counts_what_is_looked_for():
    texts = ["Look for edema.", "Look for edema. Look for edema.", "Look for a fracture. Edema.", "No edema.", ""]
    values = efficiency(RELATIONS, findings(texts, 8), findings(["Edema."] * 5, 2))
    np.testing.assert_allclose(values, [1.0, 1.0, 0.5, 0.0, 0.0])


CREDIT = {
    "A nodule is seen.": 1.0,
    "An opacity is seen.": 0.5,  # the report shows a kind of it
    "There is no effusion.": 1.0,  # in the report's own words
    "There is no fracture.": 1.0,  # it shows nothing there
    "There is no fibrosis.": 0.5,  # it shows something else there
    "A mass is seen.": 0.0,
    "There is no nodule.": 0.0,
    "The film is looked at.": 0.0,
    "A nodule is seen. We see the nodule. No fibrosis, no fracture and no effusion.": (1 + 1 + 2.5 / 3) / 3,
    "A nodule, a nodule and a mass are seen.": 0.5,
}


def test_precision_credits_what_the_report_says_and_half_of_what_is_inferred():
    claims, evidence = findings(list(CREDIT), 8), findings(["There is a nodule. No effusion."] * len(CREDIT), 8)
    verdicts = verify.verify(RELATIONS, claims, evidence)
    np.testing.assert_allclose(precision(RELATIONS, claims, evidence, verdicts), list(CREDIT.values()), atol=1e-6)


def test_a_tube_of_any_kind_is_a_tube():
    reports = ["PICC.", "Endotracheal tube.", "Chest tube.", "Pacemaker."]
    verdicts = verify.verify(RELATIONS, findings(["A catheter."] * 4, 2), findings(reports, 2))
    assert verdicts.correct[:, 0].tolist() == [1.0, 1.0, 1.0, 0.0]


def test_precision_doubts_normality_beside_a_finding():
    reports = ["The heart is normal.", "There is a granuloma.", "There is a granuloma. Normal chest."]
    claims, evidence = findings(["Normal chest."] * 3, 2), findings(reports, 4)
    verdicts = verify.verify(RELATIONS, claims, evidence)
    np.testing.assert_allclose(precision(RELATIONS, claims, evidence, verdicts), [1.0, 0.5, 1.0])


def plain_precision(claims, evidence, verdicts, row) -> float:
    """The same rule, one claim after the other."""
    sentences: dict[int, dict[tuple[int, int], list[float]]] = {}
    proofs = [slot for slot in range(evidence.valid.shape[1]) if verify.is_scored(RELATIONS, evidence)[row, slot]]
    region = RELATIONS.region
    for slot in np.flatnonzero(verdicts.scored[row]):
        concept, polarity = int(claims.concept[row, slot]), int(claims.polarity[row, slot])
        is_none = concept == verify.NO_FINDING
        explicit = any((evidence.concept[row, s], evidence.polarity[row, s]) == (concept, polarity) for s in proofs)
        shown = {int(evidence.concept[row, s]) for s in proofs if evidence.polarity[row, s]} - {verify.NO_FINDING}
        near = any(is_none or region[other] == region[concept] for other in shown)
        inferred = not explicit and (near if (polarity == 0) != is_none else not is_none)
        claims_of_step = sentences.setdefault(int(claims.step[row, slot]), {})
        credit = verdicts.correct[row, slot] * (0.5 if inferred else 1.0)
        claims_of_step.setdefault((concept, polarity), []).append(credit)
    return np.mean([np.mean([np.mean(credits) for credits in step.values()]) for step in sentences.values()] or [0.0])


def test_precision_in_jit_is_the_plain_rule():
    rng = np.random.default_rng(0)

    def random_findings(rows: int, slots: int):
        concepts = rng.choice(len(LEXICON.concepts), 12, replace=False)
        concepts[0] = verify.NO_FINDING
        ends = {"polarity": 2, "certainty": 3, "side": 4, "step": 4}
        fields = {name: rng.integers(0, end, (rows, slots)).astype(np.int32) for name, end in ends.items()}
        concept = rng.choice(concepts, (rows, slots)).astype(np.int32)
        return findings([""] * rows, slots)._replace(**fields, concept=concept, valid=rng.random((rows, slots)) < 0.8)

    for _ in range(3):
        claims, evidence = random_findings(16, 10), random_findings(16, 6)
        evidence = evidence._replace(concept=np.where(evidence.step > 1, claims.concept[:, :6], evidence.concept))
        verdicts = jax.device_get(verify.verify(RELATIONS, claims, evidence))
        in_jit = jax.jit(precision)(RELATIONS, claims, evidence, verdicts)
        plain = [plain_precision(claims, evidence, verdicts, row) for row in range(16)]
        np.testing.assert_allclose(in_jit, plain, atol=1e-5)


def test_without_a_report_the_weight_goes_to_the_other_terms(tables, targets):
    result = jax.device_get(score(RewardConfig(slots=16), tables, completion(prompt=1), targets))
    assert not result.masks["process"].any()
    np.testing.assert_allclose(result.sequence, [1.0, 0.5])


def test_step_credit_lands_on_the_tokens_of_its_sentence(tables, targets):
    step_scores = jax.device_get(score(RewardConfig(slots=16, credit="step"), tables, completion(), targets))

    def text_of(tokens) -> bytes:
        return bytes(byte for byte, yes in zip(TEXTS[0].encode(), tokens, strict=False) if yes).strip()

    assert text_of(step_scores.steps.credited[0]) == b"The heart is enlarged. There is a fracture of a rib."
    assert text_of(step_scores.steps.value[0] > 0) == b"The heart is enlarged."
    assert text_of(step_scores.steps.value[0] < 0) == b"There is a fracture of a rib."
    sequence_scores = jax.device_get(score(RewardConfig(slots=16), tables, completion(), targets))
    np.testing.assert_array_equal(step_scores.sequence, sequence_scores.sequence)
    assert not sequence_scores.steps.credited.any()


def test_the_credit_of_a_text_is_its_gain(tables, targets):
    """Each sentence's credit stands on all of its tokens, and the sentences' credits sum to the gain."""
    config = RewardConfig(slots=16, credit="step")
    scores = jax.device_get(score(config, tables, completion(), targets))
    weight = config.process / (config.format + config.accuracy + config.process)
    for row, text in enumerate(TEXTS):
        think = text[len("<think>") : text.index("</think>")]
        ends = [len("<think>") + i for i, sign in enumerate(think) if sign == "."]
        gain = sum(scores.steps.value[row, end] for end in ends) / weight
        np.testing.assert_allclose(gain, scores.terms["gain"][row], atol=1e-6)


def test_the_value_in_jit_is_the_value_on_the_host(tables, targets):
    in_jit = jax.device_get(score(RewardConfig(slots=16), tables, completion(), targets)).terms
    on_host = score_texts(LEXICON, [Item(text, (REPORT,)) for text in TEXTS], table=Priors({}, no_priors()))
    for name in ("process", "gain"):
        np.testing.assert_allclose(in_jit[name], [getattr(text, name) for text in on_host], atol=1e-6)
    for name in ("factuality", "false", "findings"):
        np.testing.assert_allclose(in_jit[name], [text.terms[name] for text in on_host], atol=1e-6)


def no_priors() -> Row:
    nothing = np.zeros(len(LEXICON.concepts), np.float32)
    return Row(nothing, nothing, 0, nothing)


def test_the_papers_rule_is_the_mean_truth(tables, targets):
    scores = jax.device_get(score(RewardConfig(slots=16, rule="paper"), tables, completion(), targets))
    np.testing.assert_array_equal(scores.terms["process"], scores.terms["factuality"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"credit": "token"}, "credit"),
        ({"format": -1.0}, "format"),
        ({"format": 0.0, "accuracy": 0.0, "process": 0.0}, "above 0"),
        ({"process": 0.0, "credit": "step"}, "raise it"),
        ({"rule": "paper", "credit": "step"}, "set credit=sequence"),
        ({"value": {"tau": 1.0}}, "tau"),
        ({"slots": 0}, "slots"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        to_dataclass(RewardConfig, options)


def test_group_metrics_show_spread_and_flat_groups():
    values = jnp.asarray([0.0, 1.0, 0.5, 0.5])
    scores = Scores(
        sequence=values,
        steps=no_credit(Completion(jnp.zeros((4, 2), jnp.int32), jnp.zeros(4, jnp.int32), jnp.zeros(4, jnp.int32))),
        terms={"process": values},
        masks={"process": jnp.asarray([True, True, False, False])},
    )
    metrics = jax.jit(partial(group_metrics, group_size=2))(scores)
    assert float(metrics["reward/total/mean"]) == 0.5
    assert float(metrics["reward/total/flat"]) == 0.5
    assert float(metrics["reward/process/std"]) == 0.5
    assert float(metrics["reward/process/flat"]) == 0.0


# A custom reward is a pure function (Completion, RewardTargets) -> Scores.


def brevity(completion: Completion, targets: RewardTargets) -> Scores:
    """1 for completions of at most 90 tokens."""
    value = (jnp.asarray(completion.length) <= 90).astype(jnp.float32)
    always = jnp.ones_like(value, bool)
    return Scores(value, no_credit(completion), {"brevity": value}, {"brevity": always})


def on_host(function, name: str):
    """A reward from a host function of numpy arrays (ids, length) -> float32[B], one batched call a step.

    The call is asynchronous: what does not depend on its result goes on meanwhile.
    """

    def reward(completion: Completion, targets: RewardTargets) -> Scores:
        shape = jax.ShapeDtypeStruct(completion.length.shape, jnp.float32)
        value = jax.pure_callback(function, shape, completion.ids, completion.length)
        always = jnp.ones_like(value, bool)
        return Scores(value, no_credit(completion), {name: value}, {name: always})

    return reward


def test_a_custom_reward_joins_the_mix(tables, targets):
    spelled = on_host(lambda ids, length: (np.asarray(ids) == ord("x")).any(1).astype(np.float32), "spelled")

    @jax.jit
    def mixed(tables, completion, targets):
        parts = [
            score(RewardConfig(slots=16), tables, completion, targets),
            brevity(completion, targets),
            spelled(completion, targets),
        ]
        return sum(part.sequence for part in parts) / len(parts)

    values = np.asarray(mixed(tables, completion(), targets))
    alone = np.asarray(score(RewardConfig(slots=16), tables, completion(), targets).sequence)
    short = np.asarray(completion().length) <= 90
    np.testing.assert_allclose(values, (alone + short + np.asarray([0.0, 1.0])) / 3, atol=1e-6)
