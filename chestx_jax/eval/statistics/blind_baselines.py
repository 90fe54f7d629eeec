"""How far closed questions can be answered without the film: baselines from text and habit alone.

Four guessers, fitted on one set and scored on another (or cross-fitted on one file):
  letter    the letter that is right most often in the task;
  label     the option whose words were right most often when offered (for yes/no: the question's own rate);
  order     the option whose list of labels follows the order gold options list theirs in (distractors rarely do);
  combined  the sum of the three as log odds: a crude model that sees no image.
Where the views of the films are known, a fifth is no guesser from text: `VIEW`, the option whose words were right most
often for films of these views. A finding that goes with a view can be guessed so in part.
Items are anything with `task`, `question` and `answer`: samples or predictions; `views` where they are known.
"""

import math
import operator
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chestx_jax.data.fields import bare_answer
from chestx_jax.data.option_lists import label_set
from chestx_jax.data.questions import options, parts
from chestx_jax.eval.predictions.accuracy import set_f1
from chestx_jax.labels import label_names

GUESSERS = ("letter", "label", "order", "combined")
VIEW = "view"
Accuracies = Mapping[str, Mapping[str, float]]  # task -> guesser -> accuracy
Rates = Mapping[Any, Sequence[int]]  # key -> (times right, times offered)


@dataclass(frozen=True)
class AnswerCounts:
    """Counts of a training set: letters, option texts, order of labels; whole label sets for open questions."""

    letters: Rates
    texts: Rates
    precedes: Mapping[tuple[str, str], int]
    label_sets: Mapping[frozenset[str], int]
    by_view: Rates  # option texts by the views of the films


def count_answers(items: Sequence[Any]) -> AnswerCounts:
    """Counts what was right when offered."""
    letters: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    texts: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    by_view: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    precedes: Counter[tuple[str, str]] = Counter()
    label_sets: Counter[frozenset[str]] = Counter()
    for item in items:
        gold, choices = bare_answer(item.answer), options(item.question)
        if not choices:
            label_sets[label_set(gold)] += 1
            continue
        for letter, text in choices.items():
            text_keys = _text_keys(item, text)
            of_view = [(*key, _views(item)) for key in text_keys]
            for table, keys in ((letters, [(item.task, letter)]), (texts, text_keys), (by_view, of_view)):
                for key in keys:
                    table[key][0] += letter == gold
                    table[key][1] += 1
        precedes.update(_ordered_pairs(choices.get(gold, "")))
    return AnswerCounts(letters, texts, precedes, label_sets, by_view)


def guess(counts: AnswerCounts, item: Any, guesser: str) -> str:
    """The letter (closed) or comma-separated labels (open: the most frequent set) that `guesser` answers."""
    choices = options(item.question)
    if not choices:
        by_count = lambda pair: (pair[1], sorted(pair[0]))  # noqa: E731
        labels, _ = max(counts.label_sets.items(), key=by_count, default=(frozenset(), 0))
        return ", ".join(sorted(labels))
    return max(choices, key=lambda letter: (_log_odds(counts, item, letter, choices[letter], guesser), -ord(letter)))


def fitted_baselines(train: Sequence[Any], test: Sequence[Any]) -> dict[str, dict[str, float]]:
    """Accuracy of each guesser per task of `test`: {task: {letter, label, order, combined, n}}; open ones add f1."""
    counts = count_answers(train)
    return {task: _task_row(counts, [item for item in test if item.task == task]) for task in _tasks(test)}


def cross_fitted_baselines(
    items: Sequence[Any], folds: int = 5, groups: Sequence[Hashable] | None = None
) -> dict[str, dict[str, float]]:
    """`fitted_baselines` of one file against itself, no item guessed by counts it took part in (each fold held out).
    Items of one group are held out together: where each option of a group is right once, the others tell of the last.
    """
    sums: dict[str, Counter[str]] = {task: Counter() for task in _tasks(items)}
    numbers: dict[Hashable, int] = {}
    of_item = [numbers.setdefault(group, len(numbers)) for group in (range(len(items)) if groups is None else groups)]
    for fold in range(folds):
        train = [item for item, number in zip(items, of_item, strict=True) if number % folds != fold]
        test = [item for item, number in zip(items, of_item, strict=True) if number % folds == fold]
        for task, row in fitted_baselines(train, test).items():
            sums[task].update({key: value * (1 if key == "n" else row["n"]) for key, value in row.items()})
    return {task: {key: (v if key == "n" else v / row["n"]) for key, v in row.items()} for task, row in sums.items()}


def _task_row(counts: AnswerCounts, items: Sequence[Any]) -> dict[str, float]:
    n = len(items)
    golds = [bare_answer(item.answer) for item in items]
    if all(not options(item.question) for item in items):
        guessed, gold = label_set(guess(counts, items[0], "label")), [label_set(gold) for gold in golds]
        exact = gold.count(guessed) / n  # every open question gets the same guess
        return {"label": exact, "combined": exact, "f1": sum(set_f1(guessed, labels) for labels in gold) / n, "n": n}
    guessers = (*GUESSERS, VIEW) if any(map(_views, items)) else GUESSERS
    guesses = {guesser: [guess(counts, item, guesser) for item in items] for guesser in guessers}
    return {guesser: sum(map(operator.eq, given, golds)) / n for guesser, given in guesses.items()} | {"n": n}


def _views(item: Any) -> tuple[str, ...]:
    return getattr(item, "views", ())


def _tasks(items: Sequence[Any]) -> list[str]:
    return sorted({item.task for item in items})


def _text_keys(item: Any, text: str) -> list[tuple[str, ...]]:
    """What an option's rate is counted under: its labels, or the whole question where the options say yes or no.

    Labels keep their punctuation: that only right options end in a full stop can be learned too.
    """
    if item.task in ("binary", "temporal"):
        return [(item.task, parts(item.question).stem.lower(), text.strip().lower())]
    return [(item.task, label) for label in label_names(text, marks="")]


def _ordered_pairs(text: str) -> list[tuple[str, str]]:
    labels = label_names(text, marks="")
    return [(a, b) for i, a in enumerate(labels) for b in labels[i + 1 :]]


def _log_odds(counts: AnswerCounts, item: Any, letter: str, text: str, guesser: str) -> float:
    """Smoothed log odds that the option is right, by what `guesser` looks at."""
    if guesser == "combined":
        return sum(_log_odds(counts, item, letter, text, part) for part in ("letter", "label", "order"))
    if guesser == "letter":
        return _smoothed(counts.letters.get((item.task, letter), (0, 0)))
    if guesser in ("label", VIEW):
        rates = [_smoothed(_rate(counts, item, key, guesser)) for key in _text_keys(item, text)]
        return sum(rates) / len(rates) if rates else 0.0
    pairs = _ordered_pairs(text)
    kept = sum(counts.precedes.get(pair, 0) for pair in pairs)
    reversed_ = sum(counts.precedes.get((second, first), 0) for first, second in pairs)
    return _smoothed((kept, kept + reversed_)) * math.sqrt(len(pairs)) if pairs else 0.0


def _rate(counts: AnswerCounts, item: Any, key: tuple[str, ...], guesser: str) -> Sequence[int]:
    if guesser == VIEW:
        return counts.by_view.get((*key, _views(item)), (0, 0))
    return counts.texts.get(key, (0, 0))


def _smoothed(rate: Sequence[int]) -> float:
    right, offered = rate
    return math.log((right + 0.5) / (offered - right + 0.5))
