"""What rewards compare completions with, built on the host from a sample's report, steps and answer."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from chestx_jax.errors import UserError
from chestx_jax.lexicon.extract import extract, pad_findings
from chestx_jax.lexicon.lexicon import CHANGES, Lexicon
from chestx_jax.lexicon.scopes import Finding
from chestx_jax.types import LABELS, TASKS, RewardTargets, label_names

# Change of a concept by its polarity in the earlier and the later report.
_CHANGE_OF_POLARITY = {(1, 0): CHANGES.index("improving"), (0, 1): CHANGES.index("worsening")}


def reward_targets(
    lexicon: Lexicon,
    reports: Sequence[Sequence[str]],
    steps: Sequence[Sequence[str]],
    answers: Sequence[str],
    tasks: Sequence[str],
    slots: int,
) -> RewardTargets:
    """The targets of N prompts as numpy arrays, with M = `slots` findings a report and a reasoning.

    Args, one entry a prompt: `reports` (0, 1 or 2 texts), `steps` of the reference reasoning, bare `answers`, `tasks`
    (names of TASKS). Each step's findings carry the step's number. Of two reports (temporal task) the findings are
    joined, and those of the second whose polarity differs from the first's carry the change.

    Raises UserError for lists of different lengths, an unknown task or an unreadable answer.
    """
    lengths = {len(reports), len(steps), len(answers), len(tasks)}
    if len(lengths) > 1:
        raise UserError(
            f"reward_targets() was given lists of different lengths {sorted(lengths)}: pass one entry a prompt."
        )
    letters_N, labels_Nx13 = np.zeros(len(tasks), np.uint32), np.zeros((len(tasks), len(LABELS)), bool)
    for index, (answer, task) in enumerate(zip(answers, tasks, strict=True)):
        if task not in TASKS:
            raise UserError(f"Prompt {index} has the task {task!r}: use one of {', '.join(TASKS)}.")
        if task == "anomaly":
            labels_Nx13[index] = label_set(answer)
        else:
            letters_N[index] = letter_bits(answer)
    return RewardTargets(
        report=pad_findings([_report_findings(lexicon, texts) for texts in reports], slots),
        steps=pad_findings([_step_findings(lexicon, texts) for texts in steps], slots),
        letters=letters_N,
        labels=labels_Nx13,
        task=np.asarray([TASKS.index(task) for task in tasks], np.int32),
        has_report=np.asarray([any(text.strip() for text in texts) for texts in reports], bool),
    )


def letter_bits(answer: str) -> int:
    """The option letters of a gold answer ("A", "A, C", "A) Yes") as a bit set: bit i for letter chr(65 + i).

    Letters with a closing bracket count alone where there are any, else all standalone capitals.
    """
    bracketed = re.findall(r"(?<![A-Za-z0-9])\(?([A-Z])\)", answer)
    letters = bracketed or re.findall(r"(?<![A-Za-z])[A-Z](?![A-Za-z])", answer)
    return sum(1 << (ord(letter) - 65) for letter in set(letters))


def label_set(answer: str) -> Bool[np.ndarray, " 13"]:
    """Which of LABELS a comma-separated gold answer names. Raises UserError for an unknown name."""
    names = [label.lower() for label in LABELS]
    named = np.zeros(len(LABELS), bool)
    for name in label_names(answer):
        if name not in names:
            raise UserError(f"The answer {answer!r} names {name!r}, which is no label: use {', '.join(LABELS)}.")
        named[names.index(name)] = True
    return named


def _step_findings(lexicon: Lexicon, texts: Sequence[str]) -> list[Finding]:
    return [replace(finding, step=index) for index, text in enumerate(texts) for finding in extract(lexicon, text)]


def _report_findings(lexicon: Lexicon, texts: Sequence[str]) -> list[Finding]:
    findings = [extract(lexicon, text) for text in texts]
    if len(findings) < 2:
        return findings[0] if findings else []
    earlier, later = findings[0], findings[-1]
    earlier_polarity = {finding.concept: finding.polarity for finding in earlier if finding.certainty}
    first_step = 1 + max((finding.step for finding in earlier), default=-1)

    def with_change(finding: Finding) -> Finding:
        polarities = (earlier_polarity.get(finding.concept, finding.polarity), finding.polarity)
        change = finding.change or _CHANGE_OF_POLARITY.get(polarities, 0)
        return replace(finding, step=finding.step + first_step, change=change)

    return earlier + [with_change(finding) for finding in later]
