"""Format and accuracy of decoded text on the host; `outcome` reads sampled tokens by the same forms."""

import re

from chestx_jax.errors import UserError
from chestx_jax.findings.targets import label_set, letter_bits
from chestx_jax.labels import LABELS

_FORM = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_LETTERS = re.compile(r"\s*\(?[A-Z](?:\s*(?:,|and)\s*[A-Z])*[).:]?(?:[^A-Za-z].*)?", re.DOTALL)


def terms(text: str, answer: str, task: str) -> dict[str, float]:
    """`format` (1 for one think and one answer block in order and a readable answer) and `accuracy` against the gold
    answer: equal letters, or F1 of the label sets in the anomaly task."""
    form = _FORM.fullmatch(text)
    blocks = _ANSWER.findall(text)
    given = blocks[0].strip() if len(blocks) == 1 else ""
    right = (
        f1(given, answer) if task == "anomaly" else float(bool(given) and _letters(given) == letter_bits(answer) > 0)
    )
    well_formed = form is not None and not any(map(_TAG.search, form.groups()))
    readable = bool(_labels(given)) if task == "anomaly" else _letters(given) > 0
    return {"format": float(well_formed and readable), "accuracy": right}


def f1(given: str, answer: str) -> float:
    """F1 of two comma-separated label sets."""
    named, gold = _labels(given), _labels(answer)
    size = len(named) + len(gold) + len([part for part in given.split(",") if part.strip()]) - len(named)
    return 2 * len(named & gold) / size if size else 0.0


def _letters(given: str) -> int:
    return letter_bits(given) if _LETTERS.fullmatch(given) else 0


def _labels(text: str) -> set[str]:
    names = set()
    for part in text.split(","):
        try:
            names |= {label for label, named in zip(LABELS, label_set(part), strict=True) if named}
        except UserError:
            continue
    return names
