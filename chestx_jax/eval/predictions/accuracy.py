"""Outcome accuracy per item: exact letters for closed questions, label sets for the open ones."""

from dataclasses import dataclass

from chestx_jax.data.fields import bare_answer
from chestx_jax.data.option_lists import label_set
from chestx_jax.eval.answers.parsing import strict
from chestx_jax.eval.predictions.records import Prediction


@dataclass(frozen=True)
class Outcome:
    """One item's outcome under the strict rule. `f1` is the label-set F1 of an open question, None for closed ones."""

    correct: bool
    parsed: bool
    given: tuple[str, ...]
    f1: float | None
    reason: str = ""


def outcome(prediction: Prediction) -> Outcome:
    """Scores one answer: exact set match, and F1 besides where the question is open."""
    verdict = strict(prediction.pred, prediction.answer, prediction.question)
    given = tuple(sorted(verdict.given or ()))
    f1 = None
    if prediction.task == "anomaly":
        gold = label_set(bare_answer(prediction.answer))
        f1 = set_f1(verdict.given or frozenset(), gold) if gold else 0.0
    return Outcome(verdict.correct, verdict.valid, given, f1, verdict.reason)


def set_f1(given: frozenset[str], gold: frozenset[str]) -> float:
    """F1 of two sets; 1 if both are empty."""
    return 2 * len(given & gold) / (len(given) + len(gold)) if given or gold else 1.0
