"""What rewards compare completions with, built on the host from a sample's report, steps and answer."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt

from chestx_jax.errors import UserError
from chestx_jax.findings.arrays import Array
from chestx_jax.findings.slots import Finding, Findings, pad_findings
from chestx_jax.findings.text import Reading, read_reports, read_texts
from chestx_jax.labels import LABELS, TASKS, label_names
from chestx_jax.lexicon.lexicon import CHANGES, Lexicon

# Change of a concept by its polarity in the earlier and the later report.
_CHANGE_OF_POLARITY = {(1, 0): CHANGES.index("improving"), (0, 1): CHANGES.index("worsening")}


class RewardTargets(NamedTuple):
    """What the rewards compare N prompts' completions with."""

    report: Findings  # of the report(s), N rows
    steps: Findings  # of the reference reasoning, N rows
    letters: UInt[Array, " N"]  # bit i set: option letter chr(65 + i) is in the gold answer; 0 for open questions
    labels: Bool[Array, "N 13"]  # gold label set in the order of LABELS (anomaly task)
    task: Int[Array, " N"]  # index into TASKS
    has_report: Bool[Array, " N"]  # False: process terms are masked


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
        report=pad_findings([_report_findings(texts) for texts in _read_all(lexicon, reports, read_reports)], slots),
        steps=pad_findings([_step_findings(texts) for texts in _read_all(lexicon, steps, read_texts)], slots),
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


def _read_all(
    lexicon: Lexicon, texts: Sequence[Sequence[str]], read: Callable[[Lexicon, Sequence[str]], list[Reading]]
) -> list[list[list[Finding]]]:
    """The findings of each text of each prompt, all read together."""
    readings = iter(read(lexicon, [text for of_prompt in texts for text in of_prompt]))
    return [[next(readings).findings for _ in of_prompt] for of_prompt in texts]


def _step_findings(findings: Sequence[Sequence[Finding]]) -> list[Finding]:
    return [finding._replace(step=index) for index, of_step in enumerate(findings) for finding in of_step]


def _report_findings(findings: Sequence[list[Finding]]) -> list[Finding]:
    if len(findings) < 2:
        return findings[0] if findings else []
    earlier, later = findings[0], findings[-1]
    earlier_polarity = {finding.concept: finding.polarity for finding in earlier if finding.certainty}
    first_step = 1 + max((finding.step for finding in earlier), default=-1)

    def with_change(finding: Finding) -> Finding:
        polarities = (earlier_polarity.get(finding.concept, finding.polarity), finding.polarity)
        change = finding.change or _CHANGE_OF_POLARITY.get(polarities, 0)
        return finding._replace(step=finding.step + first_step, change=change)

    return earlier + [with_change(finding) for finding in later]
