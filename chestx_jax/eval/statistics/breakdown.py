"""Where a model is right and wrong: by label, and how its stated probability compares with how often it is right."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from chestx_jax.data.fields import bare_answer
from chestx_jax.data.option_lists import label_set
from chestx_jax.data.questions import options, parts
from chestx_jax.eval.predictions.accuracy import Outcome
from chestx_jax.eval.predictions.records import Prediction, independent_group
from chestx_jax.eval.statistics.balanced import MEAN, balanced_accuracy
from chestx_jax.eval.statistics.intervals import Interval, mean
from chestx_jax.labels import LABELS

BINS = 10


def by_label(
    predictions: Sequence[Prediction], outcomes: Sequence[Outcome], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """{label: {asked, sensitivity, specificity, balanced_accuracy, named, recall, precision}}: yes/no questions, and
    open answers; and of the yes/no questions the mean over labels, `balanced.MEAN`.

    A share is None where nothing counts towards it; labels nobody asked for or named are left out. The balanced
    accuracy has its interval (mean, low, high, n), by patient where patients are known, else by film.
    """
    yes_no = [pair for pair in zip(predictions, outcomes, strict=True) if pair[0].task == "binary"]
    open_ones = [pair for pair in zip(predictions, outcomes, strict=True) if pair[0].task == "anomaly"]
    balanced = {label: asdict(interval) for label, interval in _balanced(yes_no, seed).items()}
    rows = {
        label: {
            **_yes_no_shares(label, yes_no),
            "balanced_accuracy": balanced.get(label),
            **_open_shares(label, open_ones),
        }
        for label in LABELS
    }
    kept = {label: row for label, row in rows.items() if row["asked"] or row["named"]}
    if MEAN in balanced:
        shares = {name: mean([row[name] for row in kept.values()]) for name in ("sensitivity", "specificity")}
        none = {"named": 0, "recall": None, "precision": None}
        kept[MEAN] = {"asked": len(yes_no), **shares, "balanced_accuracy": balanced[MEAN], **none}
    return kept


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
    for probability, right in pairs:
        bins[min(BINS - 1, int(probability * BINS))].append((probability, right))
    rows = [{"n": len(b), "probability": mean([p for p, _ in b]), "accuracy": mean([r for _, r in b])} for b in bins]
    error = sum(abs(sum(probability - right for probability, right in b)) for b in bins) / len(pairs)
    return {"n": len(pairs), "brier": mean([(p - r) ** 2 for p, r in pairs]), "expected_error": error, "bins": rows}


def _yes_no_shares(label: str, pairs: Sequence[tuple[Prediction, Outcome]]) -> dict[str, Any]:
    """Yes/no questions whose words name the label."""
    questions = [(p, o) for p, o in pairs if _asks(p, label)]
    gold = [_gold_text(p) for p, _ in questions]
    correct = lambda answer: [float(o.correct) for (_, o), g in zip(questions, gold, strict=True) if g == answer]  # noqa: E731
    return {"asked": len(questions), "sensitivity": mean(correct("yes")), "specificity": mean(correct("no"))}


def _balanced(pairs: Sequence[tuple[Prediction, Outcome]], seed: int) -> dict[str, Interval]:
    """Balanced accuracy by label, of the questions that ask for one."""
    questions = [
        (label, p, o) for label in LABELS for p, o in pairs if _asks(p, label) and _gold_text(p) in ("yes", "no")
    ]
    return balanced_accuracy(
        [label for label, _, _ in questions],
        [_gold_text(p) == "yes" for _, p, _ in questions],
        [o.correct for _, _, o in questions],
        [independent_group(p) for _, p, _ in questions],
        seed,
    )


def _asks(prediction: Prediction, label: str) -> bool:
    return label.lower() in parts(prediction.question).stem.lower()


def _gold_text(prediction: Prediction) -> str:
    """The words of the right option."""
    return options(prediction.question).get(bare_answer(prediction.answer), "").strip().lower()


def _open_shares(label: str, pairs: Sequence[tuple[Prediction, Outcome]]) -> dict[str, Any]:
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
