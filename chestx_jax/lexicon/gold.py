"""What rewards compare completions with, built on the host from a sample's report, steps and answer."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from chestx_jax.errors import UserError
from chestx_jax.lexicon.extract import extract, rows
from chestx_jax.lexicon.lexicon import CHANGES, Lexicon
from chestx_jax.lexicon.scopes import Finding
from chestx_jax.types import LABELS, TASKS, RewardTargets, label_names


def reference(
    lexicon: Lexicon,
    reports: Sequence[Sequence[str]],
    steps: Sequence[Sequence[str]],
    answers: Sequence[str],
    tasks: Sequence[str],
    slots: int,
) -> RewardTargets:
    """The Reference of N prompts (numpy): reports (0, 1 or 2 a prompt), reasoning steps, bare answers, task names.

    Each step's findings carry its number. Of two reports (temporal) the findings are joined, and those of the second
    that turn the first's around carry the change. Raises UserError for an unknown task or an unreadable answer.
    """
    sizes = {len(reports), len(steps), len(answers), len(tasks)}
    if len(sizes) > 1:
        raise UserError(f"reference() was given lists of different lengths {sorted(sizes)}: pass one entry a prompt.")
    letters, labels = np.zeros(len(tasks), np.uint32), np.zeros((len(tasks), len(LABELS)), bool)
    for index, (answer, task) in enumerate(zip(answers, tasks, strict=True)):
        if task not in TASKS:
            raise UserError(f"Prompt {index} has the task {task!r}: use one of {', '.join(TASKS)}.")
        if task == "anomaly":
            labels[index] = label_set(answer)
        else:
            letters[index] = letter_bits(answer)
    return RewardTargets(
        report=rows([_of_reports(lexicon, texts) for texts in reports], slots),
        steps=rows([_of_steps(lexicon, texts) for texts in steps], slots),
        letters=letters,
        labels=labels,
        task=np.asarray([TASKS.index(task) for task in tasks], np.int32),
        has_report=np.asarray([any(text.strip() for text in texts) for texts in reports], bool),
    )


def letter_bits(answer: str) -> int:
    """Bit i set for option letter chr(65 + i) among the standalone capitals of a gold answer ("A", "A, C", "A) Yes")."""  # noqa: E501
    marked = re.findall(r"(?<![A-Za-z0-9])\(?([A-Z])\)", answer)
    found = marked or re.findall(r"(?<![A-Za-z])[A-Z](?![A-Za-z])", answer)
    return sum(1 << (ord(letter) - 65) for letter in set(found))


def label_set(answer: str) -> np.ndarray:
    """bool[13]: the labels of a comma-separated gold answer; unknown names raise UserError."""
    names = [label.lower() for label in LABELS]
    found = np.zeros(len(LABELS), bool)
    for name in label_names(answer):
        if name not in names:
            raise UserError(f"The answer {answer!r} names {name!r}, which is no label: use {', '.join(LABELS)}.")
        found[names.index(name)] = True
    return found


def _of_steps(lexicon: Lexicon, texts: Sequence[str]) -> list[Finding]:
    return [replace(finding, step=index) for index, text in enumerate(texts) for finding in extract(lexicon, text)]


def _of_reports(lexicon: Lexicon, texts: Sequence[str]) -> list[Finding]:
    found = [extract(lexicon, text) for text in texts]
    if len(found) < 2:
        return found[0] if found else []
    earlier, later = found[0], found[-1]
    before = {finding.concept: finding.polarity for finding in earlier if finding.certainty}
    turned = {(1, 0): CHANGES.index("improving"), (0, 1): CHANGES.index("worsening")}
    offset = 1 + max((finding.step for finding in earlier), default=-1)
    moved = [
        replace(
            finding,
            step=finding.step + offset,
            change=finding.change or turned.get((before.get(finding.concept, finding.polarity), finding.polarity), 0),
        )
        for finding in later
    ]
    return earlier + moved
