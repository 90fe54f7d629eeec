"""RadRScore from stored judge replies, aggregated as the release does (`official`) or as it should be (`clean`).

A judged record carries the replies of the release's calls: `gt_key_finding` and `pred_key_finding` (observations),
`recall_res` (completeness), `precision_res` (factuality), `efficiency` (effectiveness). A reply may be anything at all.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chestx_jax.errors import UserError
from chestx_jax.eval.statistics.intervals import mean

TERMS = ("completeness", "factuality", "effectiveness")
AGGREGATIONS = ("official", "clean")
BROKEN = (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError, ZeroDivisionError)


@dataclass(frozen=True)
class Judged:
    """One record's ratios: all three, or with a `problem` those from before it broke. `noted`: what was corrected."""

    terms: Mapping[str, float]
    problem: str = ""
    noted: tuple[str, ...] = ()


def official_item(record: Any) -> Judged:
    """The release's ratios in its order: unclamped, 0 for an empty list, and kept where a later reply is malformed.

    Facts from the public scoring script (MAGIC-AI4Med/ChestX-Reasoner, eval/reasoning_eval.py).
    """
    terms: dict[str, float] = {}
    try:
        gold = len(record["gt_key_finding"]["key_conclusion"])
        terms["completeness"] = record["recall_res"]["recalled_count"] / gold if gold > 0 else 0.0
        given = len(record["pred_key_finding"]["key_conclusion"])
        terms["factuality"] = record["precision_res"]["correct_count"] / given if given > 0 else 0.0
        reply = record["efficiency"]
        steps = reply["effective_count"] + reply["ineffective_count"]
        terms["effectiveness"] = reply["effective_count"] / steps if steps > 0 else 0.0
        if not all(math.isfinite(ratio) for ratio in terms.values()):
            raise ValueError("a count is not finite")
    except BROKEN as error:
        finite = {term: ratio for term, ratio in terms.items() if math.isfinite(ratio)}
        return Judged(finite, f"{type(error).__name__}: {error}")
    return Judged(terms)


def clean_item(record: Any) -> Judged:
    """The same ratios, none for a malformed record; clamped to 1; a count beyond the reply's own list is cut to it.

    An empty list of observations or steps scores 0 and counts.
    """
    try:
        gold = _observations(record, "gt_key_finding")
        given = _observations(record, "pred_key_finding")
        recalled, first = _count(record, "recall_res", "recalled_count", "recalled_findings")
        correct, second = _count(record, "precision_res", "correct_count", "correct_steps")
        effective, third = _count(record, "efficiency", "effective_count", "effective_steps")
        ineffective, _ = _count(record, "efficiency", "ineffective_count", "ineffective_steps")
        shares = (_share(recalled, gold), _share(correct, given), _share(effective, effective + ineffective))
    except (ValueError, OverflowError) as error:
        return Judged({}, str(error))
    above = "a ratio above 1 was cut to 1" if recalled > gold > 0 or correct > given > 0 else ""
    return Judged(dict(zip(TERMS, shares, strict=True)), "", tuple(n for n in (first, second, third, above) if n))


def aggregate(records: Sequence[Any], aggregation: str) -> dict[str, Any]:
    """Counts and means of one set of judged records.

    Returns:
      `n`, `n_valid`, `malformed`, the three terms and `radrscore` as fractions (None where `clean` has no valid item),
      `accuracy` by the stored `correct`, `noted` (what `clean` corrected, by kind in `notes`) and `problems` by reason.
    """
    if aggregation not in AGGREGATIONS:
        raise UserError(f"--aggregation={aggregation} is not one of {', '.join(AGGREGATIONS)}; choose one of them")
    judged = [(official_item if aggregation == "official" else clean_item)(record) for record in records]
    valid = [record for record, item in zip(records, judged, strict=True) if not item.problem]
    empty = 0.0 if aggregation == "official" else None
    means = {t: math.fsum(i.terms.get(t, 0.0) for i in judged) / len(valid) if valid else empty for t in TERMS}
    correct = sum("yes" in r["correct"].lower() for r in valid if isinstance(r.get("correct"), str))
    return {
        "n": len(records),
        "n_valid": len(valid),
        "malformed": len(records) - len(valid),
        **means,
        "radrscore": mean_score(means),
        "accuracy": correct / len(valid) if valid else empty,
        "noted": sum(len(item.noted) for item in judged),
        "notes": dict(Counter(note for item in judged for note in item.noted)),
        "problems": dict(Counter(item.problem for item in judged if item.problem)),
    }


def mean_score(terms: Mapping[str, float | None]) -> float | None:
    """RadRScore: the mean of the three terms, None if one is missing."""
    values = [terms[term] for term in TERMS]
    return math.fsum(value for value in values if value is not None) / len(TERMS) if None not in values else None


def summary(files: Sequence[Mapping[str, Any]], pooled: Mapping[str, Any]) -> dict[str, Any]:
    """`macro` (files count alike; counts are totals) and `micro` (items count alike) beside the files."""
    terms = {term: mean([file[term] for file in files]) for term in (*TERMS, "accuracy")}
    counts = {key: pooled[key] for key in ("n", "n_valid", "malformed", "noted")}
    scored = {**{term: terms[term] for term in TERMS}, "radrscore": mean_score(terms), "accuracy": terms["accuracy"]}
    return {"files": list(files), "macro": {**counts, **scored}, "micro": {**counts, **{k: pooled[k] for k in scored}}}


def _share(count: float, total: float) -> float:
    return min(1.0, count / total) if total > 0 else 0.0


def _reply(record: Any, field: str) -> Mapping[str, Any]:
    reply = record.get(field) if isinstance(record, Mapping) else None
    if not isinstance(reply, Mapping):
        raise ValueError(f"{field} is no JSON object")
    return reply


def _observations(record: Any, field: str) -> int:
    reply = _reply(record, field)
    if "key_conclusion" not in reply:
        raise ValueError(f"{field} lacks key_conclusion")
    if not isinstance(reply["key_conclusion"], list):
        raise ValueError(f"{field}.key_conclusion is no list")
    return len(reply["key_conclusion"])


def _count(record: Any, field: str, name: str, listed: str) -> tuple[float, str]:
    """The count, cut to the length of the reply's own list, and a note where the two differ."""
    reply = _reply(record, field)
    count = reply.get(name)
    if isinstance(count, bool) or not isinstance(count, (int, float)) or not (0 <= count < math.inf):
        raise ValueError(f"{field}.{name} is missing or no count")
    items = reply.get(listed)
    if isinstance(items, list) and len(items) != count:
        return min(count, len(items)), f"{field}.{name} differs from its list"
    return count, ""
