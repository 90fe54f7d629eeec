"""What rewards compare completions with, built on the host from a sample's report, steps and answer."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt

from chestx_jax.errors import UserError
from chestx_jax.findings.arrays import Array
from chestx_jax.findings.slots import HYPOTHETICAL, Finding, Findings, pad_findings
from chestx_jax.findings.text import Reading, read_reports, read_texts
from chestx_jax.labels import LABELS, TASKS, label_names
from chestx_jax.lexicon.lexicon import CHANGES, CURRENT, EARLIER, Lexicon

# Change of a concept by its polarity in the earlier and the later report.
_CHANGE_OF_POLARITY = {(1, 0): CHANGES.index("improving"), (0, 1): CHANGES.index("worsening")}


class Stakes(NamedTuple):
    """What N prompts ask, and what a guess at each of C concepts would be worth (`rewards.priors`)."""

    asked: Bool[Array, "N C"]  # the question or its options name the concept
    prior: Float[Array, "N C"]  # how often the film of such a question shows it; below 1
    price: Float[Array, "N C"]  # cost of claiming it falsely
    unasked: Float[Array, " N"]  # weight of denials of what is not asked for


class RewardTargets(NamedTuple):
    """What the rewards compare N prompts' completions with."""

    report: Findings  # distinct findings of the report(s), N rows
    steps: Findings  # of the reference reasoning, N rows
    letters: UInt[Array, " N"]  # bit i set: option letter chr(65 + i) is in the gold answer; 0 for open questions
    labels: Bool[Array, "N 13"]  # gold label set in the order of LABELS (anomaly task)
    task: Int[Array, " N"]  # index into TASKS
    has_report: Bool[Array, " N"]  # False: process terms are masked
    two_films: Bool[Array, " N"]  # a claim that names no film speaks of the current one
    stakes: Stakes


def reward_targets(
    lexicon: Lexicon,
    reports: Sequence[Sequence[str]],
    steps: Sequence[Sequence[str]],
    answers: Sequence[str],
    tasks: Sequence[str],
    slots: int,
    stakes: Stakes | None = None,
) -> RewardTargets:
    """The targets of N prompts as numpy arrays, with M = `slots` findings a report and a reasoning.

    Args, one entry a prompt: `reports` (0, 1 or 2 texts), `steps` of the reference reasoning, bare `answers`, `tasks`
    (names of TASKS), `stakes` (None: nothing is asked for and no prior is known). Each step's findings carry the
    step's number. A report's findings are distinct (see `distinct`); those of two reports carry their film, and those
    of the second whose polarity differs from the first's carry the change.

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
        report=pad_findings(
            [distinct(report_findings(texts)) for texts in read_all(lexicon, reports, read_reports)], slots
        ),
        steps=pad_findings([_step_findings(texts) for texts in read_all(lexicon, steps, read_texts)], slots),
        letters=letters_N,
        labels=labels_Nx13,
        task=np.asarray([TASKS.index(task) for task in tasks], np.int32),
        has_report=np.asarray([any(text.strip() for text in texts) for texts in reports], bool),
        two_films=np.asarray([len(texts) > 1 for texts in reports], bool),
        stakes=stakes or no_stakes(len(lexicon.concepts), len(tasks)),
    )


def no_stakes(concepts: int, prompts: int) -> Stakes:
    """Of prompts that ask for nothing, in a world of which nothing is known."""
    zeros = np.zeros((prompts, concepts), np.float32)
    return Stakes(zeros.astype(bool), zeros, zeros, zeros[:, 0])


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


def read_all(
    lexicon: Lexicon, texts: Sequence[Sequence[str]], read: Callable[[Lexicon, Sequence[str]], list[Reading]]
) -> list[list[list[Finding]]]:
    """The findings of each text of each prompt, all read together."""
    readings = iter(read(lexicon, [text for of_prompt in texts for text in of_prompt]))
    return [[next(readings).findings for _ in of_prompt] for of_prompt in texts]


def _step_findings(findings: Sequence[Sequence[Finding]]) -> list[Finding]:
    return [finding._replace(step=index) for index, of_step in enumerate(findings) for finding in of_step]


def report_findings(findings: Sequence[list[Finding]]) -> list[Finding]:
    """The findings of one report, or of an earlier and a current one together."""
    if len(findings) < 2:
        return findings[0] if findings else []
    earlier, current = findings[0], findings[-1]
    earlier_polarity = {finding.concept: finding.polarity for finding in earlier if finding.certainty}
    first_step = 1 + max((finding.step for finding in earlier), default=-1)

    def with_change(finding: Finding) -> Finding:
        polarities = (earlier_polarity.get(finding.concept, finding.polarity), finding.polarity)
        change = finding.change or _CHANGE_OF_POLARITY.get(polarities, 0)
        return finding._replace(step=finding.step + first_step, change=change, film=finding.film or CURRENT)

    return [finding._replace(film=EARLIER) for finding in earlier] + [with_change(finding) for finding in current]


def distinct(findings: Sequence[Finding]) -> list[Finding]:
    """One finding for each concept, polarity and film: all sides that are stated, the first of each other attribute,
    and the highest certainty. Hypothetical findings are left out."""
    merged: dict[tuple[int, int, int], Finding] = {}
    for finding in findings:
        if finding.certainty == HYPOTHETICAL:
            continue
        key = (finding.concept, finding.polarity, finding.film)
        first = merged.setdefault(key, finding)
        merged[key] = first._replace(
            side=first.side | finding.side,
            certainty=max(first.certainty, finding.certainty),
            **{name: getattr(first, name) or getattr(finding, name) for name in ("site", "severity", "change")},
        )
    return list(merged.values())
