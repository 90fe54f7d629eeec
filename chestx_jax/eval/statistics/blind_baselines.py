"""How far closed questions can be answered without the film: baselines from text and habit alone.

Four guessers, fitted on one set and scored on another (or cross-fitted on one file):
  letter    the letter that is right most often in the task;
  label     the option whose words were right most often when offered (for yes/no: the question's own rate);
  order     the option whose list of labels follows the order gold options list theirs in (distractors rarely do);
  combined  the sum of the three as log odds: a crude model that sees no image.
Items are anything with `task`, `question` and `answer`: samples or predictions.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chestx_jax.data.schema import options
from chestx_jax.eval.answers.parsing import bare_answer, label_set
from chestx_jax.eval.predictions.accuracy import set_f1

KINDS = ("letter", "label", "order", "combined")
Rates = Mapping[Any, tuple[int, int]]  # key -> (times right, times offered)


@dataclass(frozen=True)
class Priors:
    """Counts of a training set: letters, option words, order of labels; whole label sets for open questions."""

    letters: Rates
    words: Rates
    precedes: Mapping[tuple[str, str], int]
    sets: Mapping[frozenset[str], int]


def fit_priors(items: Sequence[Any]) -> Priors:
    """Counts what was right when offered."""
    letters: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    words: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    precedes: Counter[tuple[str, str]] = Counter()
    sets: Counter[frozenset[str]] = Counter()
    for item in items:
        gold, choices = bare_answer(item.answer), options(item.question)
        if not choices:
            sets[label_set(gold)] += 1
            continue
        for letter, text in choices.items():
            for table, keys in ((letters, [(item.task, letter)]), (words, _keys(item, text))):
                for key in keys:
                    table[key][0] += letter == gold
                    table[key][1] += 1
        precedes.update(_pairs(choices.get(gold, "")))
    freeze = lambda table: {key: (right, offered) for key, (right, offered) in table.items()}  # noqa: E731
    return Priors(freeze(letters), freeze(words), dict(precedes), dict(sets))


def guess(priors: Priors, item: Any, kind: str) -> str:
    """The letter (closed) or comma-separated labels (open: the most frequent set) a blind guesser of `kind` answers."""
    choices = options(item.question)
    if not choices:
        best = max(priors.sets.items(), key=lambda pair: (pair[1], sorted(pair[0])), default=(frozenset(), 0))[0]
        return ", ".join(sorted(best))
    return max(choices, key=lambda letter: (_odds(priors, item, letter, choices[letter], kind), -ord(letter)))


def baselines(train: Sequence[Any], test: Sequence[Any]) -> dict[str, dict[str, float]]:
    """Accuracy of each guesser per task of `test`: {task: {letter, label, order, combined, n}}; open ones add f1."""
    priors = fit_priors(train)
    return {task: _task_row(priors, [item for item in test if item.task == task]) for task in _tasks(test)}


def cross_fitted(items: Sequence[Any], folds: int = 5) -> dict[str, dict[str, float]]:
    """`baselines` of one file against itself, no item guessed by counts it took part in (each fold held out)."""
    rows: dict[str, Counter[str]] = {task: Counter() for task in _tasks(items)}
    for fold in range(folds):
        held = list(items[fold::folds])
        train = [item for i, item in enumerate(items) if i % folds != fold]
        for task, row in baselines(train, held).items():
            rows[task].update({key: value * (1 if key == "n" else row["n"]) for key, value in row.items()})
    return {task: {key: (v if key == "n" else v / row["n"]) for key, v in row.items()} for task, row in rows.items()}


def _task_row(priors: Priors, items: Sequence[Any]) -> dict[str, float]:
    n = len(items)
    golds = [bare_answer(item.answer) for item in items]
    if all(not options(item.question) for item in items):
        pairs = [
            (label_set(guess(priors, item, "label")), label_set(gold)) for item, gold in zip(items, golds, strict=True)
        ]
        exact = sum(a == b for a, b in pairs) / n
        return {"label": exact, "combined": exact, "f1": sum(set_f1(a, b) for a, b in pairs) / n, "n": n}
    right = {
        kind: sum(guess(priors, i, kind) == gold for i, gold in zip(items, golds, strict=True)) / n for kind in KINDS
    }
    return {**right, "n": n}


def _tasks(items: Sequence[Any]) -> list[str]:
    return sorted({item.task for item in items})


def _labels(text: str) -> list[str]:
    return [name for part in re.split(r"[,;]", text) if (name := " ".join(part.lower().split()))]


def _keys(item: Any, text: str) -> list[tuple[str, ...]]:
    """What an option's rate is counted under: its labels, or the whole question where the options say yes or no."""
    if item.task in ("binary", "temporal"):
        return [(item.task, item.question.partition("Options:")[0].strip().lower(), text.strip().lower())]
    return [(item.task, label) for label in _labels(text)]


def _pairs(text: str) -> list[tuple[str, str]]:
    labels = _labels(text)
    return [(a, b) for i, a in enumerate(labels) for b in labels[i + 1 :]]


def _odds(priors: Priors, item: Any, letter: str, text: str, kind: str) -> float:
    """Smoothed log odds that the option is right, by what `kind` looks at."""
    if kind == "combined":
        return sum(_odds(priors, item, letter, text, part) for part in ("letter", "label", "order"))
    if kind == "letter":
        return _log_odds(priors.letters.get((item.task, letter), (0, 0)))
    if kind == "label":
        rates = [_log_odds(priors.words.get(key, (0, 0))) for key in _keys(item, text)]
        return sum(rates) / len(rates) if rates else 0.0
    pairs = _pairs(text)
    kept, turned = (sum(priors.precedes.get(p, 0) for p in ps) for ps in (pairs, [(b, a) for a, b in pairs]))
    return _log_odds((kept, kept + turned)) * math.sqrt(len(pairs)) if pairs else 0.0


def _log_odds(rate: tuple[int, int]) -> float:
    right, offered = rate
    return math.log((right + 0.5) / (offered - right + 0.5))
