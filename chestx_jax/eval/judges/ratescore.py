"""RaTEScore of open answers, where the public package and its weights are installed (arXiv 2406.16845)."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from chestx_jax.data.fields import bare_answer
from chestx_jax.eval.answers.parsing import answer_text, strip_echo
from chestx_jax.eval.predictions.records import Prediction


def rated(predictions: Sequence[Prediction], log: Callable[[str], None]) -> list[float | None]:
    """The RaTEScore of each open answer, None for closed questions and wherever the package cannot be used.

    The package is loaded only if there is an open question; `log` gets a line where it is installed and does not work.
    """
    if any(prediction.task == "anomaly" for prediction in predictions):
        ratescore = scorer(log)
        if ratescore is not None:
            return scores(predictions, ratescore)
    return [None] * len(predictions)


def scorer(log: Callable[[str], None]) -> Any | None:
    """The package's scorer on the CPU (JAX has the accelerator's memory); None where it is not installed, or does not
    work (a spaCy built for another numpy, weights that cannot be fetched), which is logged."""
    try:
        return importlib.import_module("RaTEScore").RaTEScore(use_gpu=False)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "RaTEScore":
            return None
        problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
        log(f"RaTEScore is installed and cannot be used ({problem}); open answers are scored by label F1 alone")
        return None


def scores(predictions: Sequence[Prediction], scorer: Any) -> list[float | None]:
    """One score per prediction: of the answer block (else the whole text) against the gold; 0 where either is empty.

    None for closed questions, which it is not meant for.
    """
    texts = [strip_echo(prediction.pred) for prediction in predictions]
    given = [(block if (block := answer_text(text)) is not None else text).strip() for text in texts]
    gold = [bare_answer(prediction.answer) for prediction in predictions]
    values = [0.0 if prediction.task == "anomaly" else None for prediction in predictions]
    scored = [i for i, value in enumerate(values) if value is not None and given[i] and gold[i]]
    if scored:
        ratescores = scorer.compute_score([given[i] for i in scored], [gold[i] for i in scored])
        for i, value in zip(scored, ratescores, strict=True):
            values[i] = float(value)
    return values
