"""RaTEScore of open answers, where the public package and its weights are installed (arXiv 2406.16845)."""

import importlib
from collections.abc import Sequence
from typing import Any

from chestx_jax.eval.answers import answer_text, bare_answer, strip_echo
from chestx_jax.eval.records import Prediction


def scorer() -> Any | None:
    """The package's scorer, or None where it is not installed."""
    try:
        return importlib.import_module("RaTEScore").RaTEScore()
    except ImportError:
        return None


def scores(predictions: Sequence[Prediction], scorer: Any) -> list[float | None]:
    """One score per prediction: of the answer block (else the whole text) against the gold; 0 where either is empty.

    None for closed questions, which it was not made for.
    """
    texts = [strip_echo(prediction.pred) for prediction in predictions]
    given = [(block if (block := answer_text(text)) is not None else text).strip() for text in texts]
    gold = [bare_answer(prediction.answer) for prediction in predictions]
    open_ones = [i for i, prediction in enumerate(predictions) if prediction.task == "anomaly"]
    asked = [i for i in open_ones if given[i] and gold[i]]
    found = scorer.compute_score([given[i] for i in asked], [gold[i] for i in asked]) if asked else []
    values: list[float | None] = [0.0 if i in set(open_ones) else None for i in range(len(predictions))]
    for i, value in zip(asked, found, strict=True):
        values[i] = float(value)
    return values
