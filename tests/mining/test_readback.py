"""Reasoning read back: each kind of mistake is seen, and told apart."""

import numpy as np
import pytest

from chestx_jax.lexicon import load
from chestx_jax.mining.questions import Pair, Question, _temporal
from chestx_jax.mining.readback import problems
from chestx_jax.mining.reference import read_references
from tests.helpers.mined_studies import make_study

LEXICON = load()
REPORT = (
    "FINDINGS: Small left pleural effusion. Possible pneumonia in the right lower lobe. The heart is mildly enlarged. "
    "Scarring. No pneumothorax. IMPRESSION: Effusion."
)
(REFERENCE,) = read_references(LEXICON, [make_study("1", REPORT)])


def question(task="binary", answer="A", gold=("Pleural Effusion",), options=(("Yes",), ("No",)), text=""):
    text = text or "Does this chest X-ray show pleural effusion? Options:\nA) Yes\nB) No"
    return Question("q", task, text, answer, (REFERENCE,), gold, options)


SINGLE = question(
    "single",
    "B",
    options=(("Fracture",), ("Pleural Effusion",), ("Pneumothorax",), ("No Finding",)),
    text="Which finding is it? Options:\nA) fracture\nB) pleural effusion\nC) pneumothorax\nD) no finding",
)
ANOMALY = question(
    "anomaly", "Cardiomegaly, Pleural Effusion", ("Cardiomegaly", "Pleural Effusion"), (), "Which findings?"
)
GOOD = [
    (
        question(),
        ["The costophrenic angles are examined.", "A small left effusion is seen.", "So the answer is A) Yes."],
    ),
    (question(), ["There is an effusion on the left.", "The answer is yes, A."]),
    (question(), ["There may be an effusion.", "Pneumonia is possible.", "Hence the answer is A."]),
    (SINGLE, ["No fracture or pneumothorax is seen.", "There is a left effusion.", "The answer is B."]),
    (
        ANOMALY,
        ["The heart is enlarged.", "There is an effusion.", "The film shows cardiomegaly and a pleural effusion."],
    ),
]
OPENING = "The film is looked at closely."
E1, E2 = "There is a small left effusion.", "So the answer is A) Yes."
BAD = [
    ("wrong number of steps", question(), [E1, E2]),
    ("wrong number of steps", question(), [E1, "  ", E2]),
    ("wrong number of steps", question(), [E1] * 20),
    ("a step is too long", question(), [E1, "The lungs are looked at. " * 30, E2]),
    ("contradicts the report", question(), [E1, "There is a pneumothorax.", E2]),
    ("contradicts the report", question(), [E1, "The heart is not enlarged.", E2]),
    ("contradicts the report", question(), ["No effusion is seen.", E2]),
    ("invents a finding", question(), [E1, "A rib fracture is seen.", E2]),
    ("invents a finding", question(), [E1, "There may be a mass.", E2]),
    ("invents a side", question(), ["A right effusion is seen.", E2]),
    ("invents a side", question(), [E1, "Scarring is seen on the right.", E2]),
    ("invents a severity", question(), ["A large left effusion is seen.", E2]),
    ("invents a severity", question(), [E1, "The heart is severely enlarged.", E2]),
    ("is surer than the report", question(), [E1, "There is pneumonia.", E2]),
    ("invents a place", question(), [E1, "Pneumonia is possible in the right upper lobe.", E2]),
    ("speaks of a report", question(), [E1, "The report says so.", E2]),
    ("speaks of a report", question(), [E1, "The impression agrees.", E2]),
    ("speaks of a report", question(), [E1, "The XXXX is clear.", E2]),
    ("speaks of a report", question(), [E1, "Seen since ___.", E2]),
    ("speaks of a report", question(), [E1, "As the evidence is given, this is clear.", E2]),
    ("speaks of films that are not shown", question(), [E1, "Unchanged from the prior study.", E2]),
    ("speaks of films that are not shown", question(), ["There is a new left effusion.", E2]),
    ("speaks of films that are not shown", question(), ["The left effusion has increased.", E2]),
    ("speaks of films that are not shown", question(), [E1, "Compared with the last film this is so.", E2]),
    ("speaks of films that are not shown", question(), ["A persistent left effusion.", E2]),
    ("ends in another answer", question(), [E1, "So the answer is B) No."]),
    ("ends in another answer", question(), [E1, "That is all."]),
    ("ends in another answer", question(), [E1, "The answer is A or B."]),
    ("ends in another answer", question(), ["The answer is A) Yes.", E1]),
    ("leaves out what was asked", question(), ["The heart is enlarged.", E2]),
    ("leaves out what was asked", SINGLE, ["There is a left effusion.", "No fracture.", "The answer is B."]),
    ("ends in another answer", ANOMALY, ["The heart is enlarged.", E1, "The film shows an effusion."]),
    ("ends in another answer", ANOMALY, ["The heart is enlarged.", E1, "It shows effusion, cardiomegaly, edema."]),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "steps"), GOOD)
def test_what_agrees_passes(asked, steps):
    assert problems(LEXICON, asked, [OPENING, *steps]) == []


@pytest.mark.parametrize(("reason", "asked", "steps"), BAD)
def test_each_mistake_is_seen(reason, asked, steps):
    found = problems(LEXICON, asked, steps if "number" in reason else [OPENING, *steps])
    assert reason in {problem.reason for problem in found}, found


def test_a_problem_names_its_step():
    (problem,) = problems(LEXICON, question(), [E1, "The lungs are looked at.", "A fracture is seen.", E2])
    assert (problem.reason, problem.step, problem.detail) == ("invents a finding", 2, "Fracture present")


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (["The reference image shows no effusion.", "The new image shows a left effusion.", "It increased."], ""),
        (
            ["The reference image shows an effusion.", "The new image shows a left effusion."],
            "contradicts the report",
        ),
        (["The reference image shows no effusion.", "The new image shows no effusion."], "contradicts the report"),
        (["The reference image shows no effusion.", "The new image shows an effusion, which has decreased."],
         "contradicts the report"),
        (["The new image shows an effusion."], "leaves out what was asked"),
    ],
)  # fmt: skip
def test_two_films_are_read_apart(steps, reason):
    texts = ("FINDINGS: No pleural effusion.", "FINDINGS: New small left pleural effusion.")
    earlier, current = read_references(
        LEXICON, [make_study(f"{i}", text, patient="openi:1", order=i) for i, text in enumerate(texts)]
    )
    asked = _temporal(Pair(earlier, current, "Pleural Effusion", "worsening"), "", np.random.default_rng(0))
    reasons = {
        problem.reason for problem in problems(LEXICON, asked, [OPENING, *steps, f"The answer is {asked.answer}."])
    }
    assert reason in reasons if reason else not reasons
