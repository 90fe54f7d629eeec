"""Accuracy of stored prediction files under a named rule: the counts and fractions that the command prints."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chestx_jax.data.fields import FieldError, Unreadable, text_of
from chestx_jax.errors import UserError
from chestx_jax.eval.answers.official import FAMILIES, family_of, official
from chestx_jax.eval.answers.parsing import Verdict, strict
from chestx_jax.eval.predictions.records import raw_records
from chestx_jax.eval.statistics.intervals import mean, share_interval

RULES = ("official", "strict")
COUNTS = ("n", "n_valid", "n_correct", "unparsed")
SHARES = ("accuracy", "accuracy_all")


def verdict(record: Any, rule: str, family: str, echo_stripped: bool = False) -> Verdict:
    """The verdict on one raw record; one that is no object, or lacks text, is unparsed, with the reason."""
    if not isinstance(record, Mapping):
        problem = record.problem if isinstance(record, Unreadable) else f"is {type(record).__name__}, not an object"
        return Verdict(None, False, False, f"the record {problem}")
    if rule == "official":
        pred, answer = record.get("pred", ""), record.get("answer", "")
        return official(pred, answer, record.get("question", ""), family, echo_stripped)
    try:
        pred, answer, question = (text_of(record, field) for field in ("pred", "answer", "question"))
    except FieldError as error:
        return Verdict(None, False, False, f"field {error.field} {error.problem}")
    return strict(pred, answer, question)


def score_file(path: str | Path, rule: str, family: str = "auto", echo_stripped: bool = False) -> dict[str, Any]:
    """Counts and accuracies of one file, fractions; `accuracy` is None where the rule cannot decide, with the `reason`.

    Raises:
      UserError: the file cannot be read, or rule or family are unknown.
    """
    if rule not in RULES or family not in FAMILIES:
        raise UserError(
            f"--rule={rule} --family={family}: choose of the rules {', '.join(RULES)}, families {', '.join(FAMILIES)}"
        )
    family = family_of(path) if family == "auto" else family
    verdicts = [verdict(record, rule, family, echo_stripped) for record in raw_records(path)]
    return {"file": str(path), "family": family, "rule": rule, **_row(verdicts, rule)}


def summary(files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The files in order, `macro` (files count alike; counts are totals) and `micro` (records count alike).

    Files that the rule cannot decide take part in neither mean; `files_scored` is how many do.
    """
    scored = [file for file in files if file["accuracy_all"] is not None]
    counts = {key: sum(file[key] for file in scored) for key in COUNTS}
    means = {key: mean([file[key] for file in scored]) for key in SHARES}
    valid, n = counts["n_valid"], counts["n"]
    pooled = {
        "accuracy": counts["n_correct"] / valid if valid else (0.0 if means["accuracy"] == 0.0 else None),
        "accuracy_all": counts["n_correct"] / n if n else None,
    }
    extra = {"files_scored": len(scored)}
    return {"files": list(files), "macro": {**counts, **means, **extra}, "micro": {**counts, **pooled, **extra}}


def _row(verdicts: Sequence[Verdict], rule: str) -> dict[str, Any]:
    n, valid, correct = len(verdicts), sum(v.valid for v in verdicts), sum(v.correct for v in verdicts)
    reasons = dict(Counter(verdict.reason for verdict in verdicts if verdict.reason))
    undecided = next((reason for reason in reasons if "scored by" in reason and reasons[reason] == n), "")
    interval = share_interval([float(v.correct) for v in verdicts])
    return {
        "n": n,
        "n_valid": valid,
        "n_correct": correct,
        # The release prints 0 where nothing was valid; the strict rule has no number then.
        "accuracy": None if undecided else correct / valid if valid else (0.0 if rule == "official" else None),
        "accuracy_all": None if undecided or not n else correct / n,
        "interval_all": None if undecided else [interval.low, interval.high],
        "unparsed": n - valid,
        "reasons": reasons,
        **({"reason": undecided} if undecided else {}),
    }
