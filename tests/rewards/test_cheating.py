"""Ways to cheat the reward, on cases with something to find: none earns what honest, partly wrong reasoning earns.

How each is stopped: listing negatives, by the stake on unstated present findings and the low weight of denials nobody
asked for; repetition, by counting a claim once and the free mentions; keyword lists, by the words a claim needs; claiming
everything, by the free wrong claims;
copied questions and options, because questions and listed options assert nothing; contradiction, because both sides
count as wrong; hedging, by half credit; short and empty reasoning, by the least number of words; answers and tags in
odd places, because the text is then broken and has no think block; padding, by the least share of effective
sentences; other languages and look-alike letters, because foreign words assert nothing.
"""  # noqa: E501

from dataclasses import dataclass

import jax
import numpy as np
import pytest

from chestx_jax import lexicon
from chestx_jax.rewards.reward import RewardConfig, score
from chestx_jax.types import LABELS, Completion

WORDS = [bytes([byte]) for byte in range(256)]


@dataclass(frozen=True)
class Case:
    report: str
    honest: str  # partly wrong
    present: str  # one true finding
    question: str


CASES = (
    Case(
        "Findings: The heart is moderately enlarged. Small left pleural effusion with left basilar atelectasis. No pneumothorax. "  # noqa: E501
        "Impression: Cardiomegaly and small left effusion.",
        "I start with the heart, which is enlarged. There is a small left pleural effusion. The left base shows "
        "consolidation. No pneumothorax is seen. The bones look intact.",
        "There is a left pleural effusion.",
        "Does this chest X-ray show pleural effusion? Options:\nA) Yes\nB) No",
    ),
    Case(
        "Findings: Consolidation in the right lower lobe, consistent with pneumonia. The heart size is normal. No effusion.",  # noqa: E501
        "The heart is not enlarged. There is a consolidation in the right lower lobe. A small right pleural effusion is "  # noqa: E501
        "present. There is no pneumothorax.",
        "There is consolidation in the right lower lobe.",
        "Which finding is in this chest X-ray? Options:\nA) Pneumonia\nB) Edema\nC) Fracture\nD) Pneumothorax",
    ),
    Case(
        "Findings: Moderate right pneumothorax. Right rib fractures. A chest tube is in place. Heart size is normal.",
        "There is a pneumothorax on the right. The lungs are otherwise without edema. No fracture is seen. A chest tube "  # noqa: E501
        "projects over the right hemithorax. The heart size is normal.",
        "There is a right pneumothorax.",
        "Which findings are in this chest X-ray? Options:\nA) Edema, Pneumonia\nB) Fracture, Pneumothorax",
    ),
    Case(
        "Findings: Mild pulmonary edema with small bilateral pleural effusions. Stable cardiomegaly.",
        "The heart is enlarged. There is mild pulmonary edema. There is no pleural effusion. There is a nodule in the left "  # noqa: E501
        "upper lobe.",
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
def scored():
    tables = lexicon.compile_tables(lexicon.load(), WORDS)
    reports = [(case.report,) for case in CASES]
    reference = lexicon.reward_targets(
        lexicon.load(), reports, [()] * len(CASES), ["A"] * len(CASES), ["single"] * len(CASES), 48
    )
    rows = [
        (place, name, text)
        for place, case in enumerate(CASES)
        for name, text in (("honest", wrap(case.honest)), *cheats(case).items())
    ]
    data = [text.encode() for _, _, text in rows]
    ids = np.zeros((len(rows), max(map(len, data))), np.int32)
    for row, item in enumerate(data):
        ids[row, : len(item)] = list(item)
    completion = Completion(
        ids=ids,
        length=np.asarray([len(item) for item in data], np.int32),
        prompt=np.asarray([place for place, _, _ in rows], np.int32),
    )
    result = jax.device_get(score(RewardConfig(), tables, completion, reference))
    return {
        (place, name): (float(result.sequence[row]), float(result.terms["process"][row]))
        for row, (place, name, _) in enumerate(rows)
    }


@pytest.mark.parametrize("name", cheats(CASES[0]))
def test_no_cheat_earns_what_honest_reasoning_earns(scored, name):
    for place in range(len(CASES)):
        honest, cheat = scored[place, "honest"], scored[place, name]
        assert honest[0] > cheat[0] + 0.02, f"case {place}: {cheat} against {honest}"
        if name != "two answers":  # its reasoning is the honest one
            assert honest[1] > cheat[1], f"case {place}: process {cheat} against {honest}"


def test_honest_reasoning_earns_something(scored):
    assert min(scored[place, "honest"][1] for place in range(len(CASES))) > 0.2
