"""Questions about phantom films in the five task families, whose text alone gives no hint of the answer.

Each closed question is drawn before its film: first the options, by a rule that treats all labels alike, then which one
is right, then a film for which it is true. So every option is right equally often given the question's text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from chestx_jax.data.schema import Sample
from chestx_jax.labels import LABELS
from chestx_jax.phantom.cases import FINDINGS, Case, ground_truth, has_ambiguous_pair, is_ambiguous
from chestx_jax.phantom.finding import CHANGES
from chestx_jax.phantom.text import phrases, reasoning
from chestx_jax.phantom.text.reasoning import LETTERS

_NORMAL_SHARE = 0.1  # of anomaly questions; low, so that guessing "No Finding" does not pay
_SINGLE = "Which finding is in this chest X-ray?"
_MULTIPLE = "Which findings are in this chest X-ray?"
_TEMPORAL = (
    "You are given two images: one reference image and one new image. Please identify the progression of {finding}."
)


@dataclass(frozen=True)
class Study:
    """A case with its films on disk and its reports."""

    case: Case
    images: tuple[str, ...]
    reports: tuple[str, ...]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The film's labels in the order of a report, "No Finding" for a normal one."""
        return tuple(finding.label for finding in reasoning.in_order(self.case.findings)) or ("No Finding",)


QuestionMaker = Callable[[Sequence[Study], int, np.random.Generator], list[Sample]]


def binary(studies: Sequence[Study], count: int, rng: np.random.Generator) -> list[Sample]:
    """ "Does this chest X-ray show …?": every label, asked equally often where it is present and where it is absent."""
    samples = []
    for label, yes in _cycle([(label, yes) for label in FINDINGS for yes in (True, False)], count, rng):
        study = _find(studies, rng, partial(_answers_binary, label, yes))
        if study is None:
            continue
        steps = reasoning.binary_steps(study.case.findings, label, rng)
        question = f"Does this chest X-ray show {phrases.name(label)}? {option_lines(['Yes', 'No'])}"
        samples.append(_sample(study, "binary", question, "A" if yes else "B", steps))
    return samples


def single(studies: Sequence[Study], count: int, rng: np.random.Generator) -> list[Sample]:
    """ "Which finding is in this chest X-ray?": four labels (or No Finding) of which exactly one is true."""
    samples = []
    for letter in _cycle(LETTERS, count, rng):
        order = unambiguous_labels(4, rng)
        gold = order[LETTERS.index(letter)]
        study = _find(studies, rng, partial(_answers_single, gold, order))
        if study is None:
            continue
        steps = reasoning.choice_steps(study.case.findings, [[label] for label in order], letter)
        question = f"{_SINGLE} {option_lines([phrases.name(label) for label in order])}"
        samples.append(_sample(study, "single", question, letter, steps))
    return samples


def multiple(studies: Sequence[Study], count: int, rng: np.random.Generator) -> list[Sample]:
    """ "Which findings are in this chest X-ray?": the label sets of four films, of one size; one is this film's."""
    by_size = {size: [study for study in studies if len(study.case.findings) == size] for size in (2, 3)}
    samples = []
    for size in _cycle((2, 3), count, rng):
        four = _four_studies(by_size[size], rng)
        if four is None:
            continue
        study = four[0]
        order = shuffled(four, rng)
        letter = LETTERS[order.index(study)]
        label_sets = [shuffled(each.labels, rng) for each in order]
        steps = reasoning.choice_steps(study.case.findings, label_sets, letter)
        question = f"{_MULTIPLE} {option_lines([', '.join(map(phrases.name, labels)) for labels in label_sets])}"
        samples.append(_sample(study, "multiple", question, letter, steps))
    return samples


def anomaly(studies: Sequence[Study], count: int, rng: np.random.Generator) -> list[Sample]:
    """ "Which findings are in this chest X-ray?" without options; the answer lists the labels in the steps' order."""
    samples = []
    for number in range(count):
        normal = number < round(count * _NORMAL_SHARE)
        study = _find(studies, rng, partial(_is_normal, normal))
        if study is not None:
            steps = reasoning.anomaly_steps(study.case.findings, rng)
            samples.append(_sample(study, "anomaly", _MULTIPLE, ", ".join(study.labels), steps))
    return samples


def temporal(studies: Sequence[Study], count: int, rng: np.random.Generator) -> list[Sample]:
    """The progression of a finding between two films, its three options in any order."""
    pairs = [study for study in studies if study.case.earlier is not None]
    samples = []
    for study in _cycle(pairs, count, rng) if pairs else []:
        order = shuffled(CHANGES, rng)
        letter = LETTERS[order.index(study.case.change)]
        steps = reasoning.temporal_steps(study.case, order, rng)
        question = f"{_TEMPORAL.format(finding=phrases.name(study.case.changed))} {option_lines(order)}"
        samples.append(_sample(study, "temporal", question, letter, steps))
    return samples


def questions(studies: Sequence[Study], count: int, name: str, source: str, rng: np.random.Generator) -> list[Sample]:
    """Up to `count` questions of each family about the studies of one split, shuffled; ids are `name`-number-task."""
    one_film = [study for study in studies if study.case.earlier is None]
    makers: tuple[QuestionMaker, ...] = (binary, single, multiple, anomaly)
    samples = [sample for maker in makers for sample in maker(one_film, count, rng)] + temporal(studies, count, rng)
    return with_ids(shuffled(samples, rng), name, source)


def with_ids(samples: Sequence[Sample], name: str, source: str) -> list[Sample]:
    """The samples with their ids (`name`-number-task) and their source's name."""
    return [
        replace(sample, id=f"{name}-{index:05d}-{sample.task}", source=source) for index, sample in enumerate(samples)
    ]


def unambiguous_labels(count: int, rng: np.random.Generator) -> list[str]:
    """`count` labels in random order without an ambiguous pair."""
    while has_ambiguous_pair(labels := shuffled(LABELS, rng)[:count]):
        continue
    return labels


def shuffled(items: Sequence, rng: np.random.Generator) -> list:
    """The items in random order."""
    return [items[i] for i in rng.permutation(len(items))]


def option_lines(texts: Sequence[str]) -> str:
    """ "Options:" and one lettered line for each text."""
    return "Options:\n" + "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, texts, strict=False))


def _sample(study: Study, task: str, question: str, answer: str, steps: tuple[str, ...]) -> Sample:
    truth = ground_truth(study.case.findings, study.case.changed, study.case.change)
    return Sample("", task, question, answer, study.images, steps, study.reports, "", truth)


def _four_studies(studies: Sequence[Study], rng: np.random.Generator) -> list[Study] | None:
    """Four studies with different label sets and no ambiguous pair; None if a thousand draws find none."""
    if len(studies) < 4:
        return None
    for _ in range(1000):
        four = [studies[i] for i in rng.choice(len(studies), size=4, replace=False)]
        if len({frozenset(study.labels) for study in four}) == 4 and not has_ambiguous_pair(
            label for study in four for label in study.labels
        ):
            return four
    return None


def _answers_binary(label: str, yes: bool, study: Study) -> bool:
    """Whether the film shows the label (`yes`), or nothing that could be taken for it."""
    return label in study.labels if yes else not is_ambiguous(label, study.labels)


def _answers_single(gold: str, options: Sequence[str], study: Study) -> bool:
    """Whether the film shows the gold option, and nothing that could be taken for another one."""
    return gold in study.labels and not any(is_ambiguous(label, study.labels) for label in options if label != gold)


def _is_normal(normal: bool, study: Study) -> bool:
    return normal == (not study.case.findings)


def _find(studies: Sequence[Study], rng: np.random.Generator, fits: Callable[[Study], bool]) -> Study | None:
    """A random study that fits; None if there is none."""
    for index in rng.integers(len(studies), size=60):
        if fits(studies[index]):
            return studies[index]
    fitting = [study for study in studies if fits(study)]
    return fitting[rng.integers(len(fitting))] if fitting else None


def _cycle(items: Sequence, count: int, rng: np.random.Generator) -> list:
    """`count` items in random order, each as often as any other to within one."""
    rounds = -(-count // len(items))
    return [items[i] for _ in range(rounds) for i in rng.permutation(len(items))][:count]
