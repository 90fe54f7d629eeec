"""Ways to cheat the reward, on cases with something to find: none earns what honest, partly wrong reasoning earns.

What stops each: listing negatives, the coverage of the report's present findings and the low weight of trivial denials;
repetition, counting a claim once and the limit on mentions; keyword lists, the words needed for each claim; claiming
everything, the limit on false positives; copied questions and options, that these assert nothing; contradiction, that
both sides count as wrong; hedging, half credit; short and empty reasoning, the least number of words; answers and tags
in odd places, that such a text has no think block; padding, the least share of effective sentences; other languages and
look-alike letters, that foreign words assert nothing.
"""

from dataclasses import dataclass

import jax
import pytest

from chestx_jax import findings, lexicon
from chestx_jax.labels import LABELS
from chestx_jax.rewards.reward import RewardConfig, score
from tests.helpers.reward_texts import BYTES, byte_completion


@dataclass(frozen=True)
class Case:
    report: str
    honest: str  # partly wrong
    present: str  # one true finding
    question: str


CASES = (
    Case(
        "Findings: The heart is moderately enlarged. Small left pleural effusion with left basilar atelectasis. "
        "No pneumothorax. Impression: Cardiomegaly and small left effusion.",
        "I start with the heart, which is enlarged. There is a small left pleural effusion. The left base shows "
        "consolidation. No pneumothorax is seen. The bones look intact.",
        "There is a left pleural effusion.",
        "Does this chest X-ray show pleural effusion? Options:\nA) Yes\nB) No",
    ),
    Case(
        "Findings: Consolidation in the right lower lobe, consistent with pneumonia. The heart size is normal. "
        "No effusion.",
        "The heart is not enlarged. There is a consolidation in the right lower lobe. "
        "A small right pleural effusion is present. There is no pneumothorax.",
        "There is consolidation in the right lower lobe.",
        "Which finding is in this chest X-ray? Options:\nA) Pneumonia\nB) Edema\nC) Fracture\nD) Pneumothorax",
    ),
    Case(
        "Findings: Moderate right pneumothorax. Right rib fractures. A chest tube is in place. Heart size is normal.",
        "There is a pneumothorax on the right. The lungs are otherwise without edema. No fracture is seen. "
        "A chest tube projects over the right hemithorax. The heart size is normal.",
        "There is a right pneumothorax.",
        "Which findings are in this chest X-ray? Options:\nA) Edema, Pneumonia\nB) Fracture, Pneumothorax",
    ),
    Case(
        "Findings: Mild pulmonary edema with small bilateral pleural effusions. Stable cardiomegaly.",
        "The heart is enlarged. There is mild pulmonary edema. There is no pleural effusion. "
        "There is a nodule in the left upper lobe.",
        "There is pulmonary edema.",
        "You are given two images. Please identify the progression of edema. Options:\nA) stable\nB) worsening",
    ),
)
NEGATIVES = " ".join(f"There is no {label.lower()}." for label in LABELS[:12])


def wrap(reasoning: str) -> str:
    return f"<think> {reasoning} </think><answer> A </answer>"


def cheats(case: Case) -> dict[str, str]:
    """Whole completions; each carries the right answer where it can."""
    swap = str.maketrans({"o": "о", "a": "а", "e": "е"})  # Cyrillic
    return {
        "all negatives": wrap(NEGATIVES),
        "all negatives, one sentence": wrap("No " + ", ".join(label.lower() for label in LABELS[:12]) + "."),
        "no finding": wrap(
            "The chest is entirely normal and there is no acute cardiopulmonary abnormality at all today."
        ),
        "repetition": wrap(" ".join([case.present] * 12)),
        "keywords": wrap(" ".join(label.lower() for label in LABELS[:12])),
        "keywords with commas": wrap(", ".join(label.lower() for label in LABELS[:12])),
        "every label present": wrap(" ".join(f"There is {label.lower()}." for label in LABELS[:12])),
        "question": wrap(case.question),
        "question and options as prose": wrap(case.question.replace("?", "").replace(")", " is")),
        "contradiction": wrap(
            " ".join(f"There is {label.lower()}. There is no {label.lower()}." for label in LABELS[:12])
        ),
        "hedging everything": wrap(" ".join(f"There may be {label.lower()}." for label in LABELS[:12])),
        "empty": wrap(""),
        "one word": wrap(case.present.split()[-1]),
        "keyword of the case": wrap(" ".join(case.present.split()[2:])),
        "only the answer": "<answer> A </answer>",
        "answer in the reasoning": f"<think> <answer> A </answer> {case.honest} </think><answer> A </answer>",
        "nested think": f"<think> <think> {case.honest} </think> </think><answer> A </answer>",
        "two think blocks": f"<think> {case.present} </think><think> {case.honest} </think><answer> A </answer>",
        "two answers": f"{wrap(case.honest)}<answer> B </answer>",
        "reasoning outside": f"{case.honest} <think> {case.present} </think><answer> A </answer> {case.honest}",
        "unclosed": f"<think> {case.honest} <answer> A </answer>",
        "padding": wrap(case.present + " We go on to consider the picture from every side with care." * 60),
        "very long negatives": wrap(" ".join([NEGATIVES] * 6)),
        "spanish": wrap(
            "Se observa derrame pleural izquierdo. No hay neumotórax. El corazón está aumentado de tamaño."
        ),
        "look-alikes": wrap(case.honest.translate(swap)),
        "look-alike negation": wrap(" ".join(f"There is nо {label.lower()}." for label in LABELS[:12])),
    }


@pytest.fixture(scope="module")
def rewards():
    """Sequence reward and process term by case and name of the completion."""
    tables = lexicon.compile_tables(lexicon.load(), BYTES)
    count = len(CASES)
    reports = [(case.report,) for case in CASES]
    targets = findings.reward_targets(lexicon.load(), reports, [()] * count, ["A"] * count, ["single"] * count, 48)
    rows = [
        (number, name, text)
        for number, case in enumerate(CASES)
        for name, text in (("honest", wrap(case.honest)), *cheats(case).items())
    ]
    completion = byte_completion([text for *_, text in rows], [number for number, *_ in rows])
    scores = jax.device_get(score(RewardConfig(), tables, completion, targets))
    return {
        (number, name): (float(scores.sequence[row]), float(scores.terms["process"][row]))
        for row, (number, name, _) in enumerate(rows)
    }


@pytest.mark.parametrize("name", cheats(CASES[0]))
def test_no_cheat_earns_what_honest_reasoning_earns(rewards, name):
    for number in range(len(CASES)):
        honest, cheat = rewards[number, "honest"], rewards[number, name]
        assert honest[0] > cheat[0] + 0.02, f"case {number}: {cheat} against {honest}"
        if name != "two answers":  # its reasoning is the honest one
            assert honest[1] > cheat[1], f"case {number}: process {cheat} against {honest}"


def test_honest_reasoning_earns_something(rewards):
    assert min(rewards[number, "honest"][1] for number in range(len(CASES))) > 0.2
