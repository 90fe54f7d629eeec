"""Where a model is right and wrong: by label, and how its stated probability compares with how often it is right."""

from collections.abc import Sequence
from typing import Any

from chestx_jax.data.schema import options
from chestx_jax.eval.answers.parsing import bare_answer, label_set
from chestx_jax.eval.predictions.accuracy import Outcome
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.types import LABELS

BINS = 10


def by_label(predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """{label: {asked, sensitivity, specificity, named, recall, precision}}: yes/no questions, and open answers.

    A share is None where nothing counts towards it; labels nobody asked for or named are left out.
    """
    asked = [pair for pair in zip(predictions, outcomes, strict=True) if pair[0].task == "binary"]
    named = [pair for pair in zip(predictions, outcomes, strict=True) if pair[0].task == "anomaly"]
    rows = {label: {**_asked(label, asked), **_named(label, named)} for label in LABELS}
    return {label: row for label, row in rows.items() if row["asked"] or row["named"]}


def calibration(predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """Brier score, expected calibration error (ten equal bins) and the bins; None where no probability is known."""
    pairs = [
        (p.probability, float(o.correct))
        for p, o in zip(predictions, outcomes, strict=True)
        if p.probability is not None
    ]
    if not pairs:
        return None
    bins: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for said, right in pairs:
        bins[min(BINS - 1, int(said * BINS))].append((said, right))
    rows = [{"n": len(b), "said": _mean([s for s, _ in b]), "right": _mean([r for _, r in b])} for b in bins]
    error = sum(abs(sum(said - right for said, right in b)) for b in bins) / len(pairs)
    return {"n": len(pairs), "brier": _mean([(s - r) ** 2 for s, r in pairs]), "expected_error": error, "bins": rows}


def _asked(label: str, pairs: Sequence[tuple[Prediction, Outcome]]) -> dict[str, Any]:
    """Yes/no questions whose words name the label."""
    own = [(p, o) for p, o in pairs if label.lower() in p.question.partition("Options:")[0].lower()]
    yes = [(p, o) for p, o in own if options(p.question).get(bare_answer(p.answer), "").strip().lower() == "yes"]
    no = [(p, o) for p, o in own if options(p.question).get(bare_answer(p.answer), "").strip().lower() == "no"]
    return {
        "asked": len(own),
        "sensitivity": _mean([float(o.correct) for _, o in yes]),
        "specificity": _mean([float(o.correct) for _, o in no]),
    }


def _named(label: str, pairs: Sequence[tuple[Prediction, Outcome]]) -> dict[str, Any]:
    """Open answers that name the label, or should."""
    name = label.lower()
    gold = [name in label_set(bare_answer(p.answer)) for p, _ in pairs]
    given = [name in o.given for _, o in pairs]
    both = sum(a and b for a, b in zip(gold, given, strict=True))
    return {
        "named": sum(gold),
        "recall": both / sum(gold) if any(gold) else None,
        "precision": both / sum(given) if any(given) else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
