"""Reasoning read back: whatever is mined, by rules or by an LLM, is read by the findings rules and must agree with the
report, end in the answer, and name what was asked."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from chestx_jax.eval.answers.parsing import given_letters
from chestx_jax.findings import HEDGED, HYPOTHETICAL, Finding, pad_findings, read_texts
from chestx_jax.labels import LABELS
from chestx_jax.lexicon import Lexicon, relations
from chestx_jax.lexicon.lexicon import CHANGES, CURRENT, EARLIER
from chestx_jax.lexicon.tables import Relations
from chestx_jax.mining.questions import Question
from chestx_jax.mining.reference import NO_FINDING, Reference
from chestx_jax.rewards import verify

LEAST, MOST, LONGEST = 3, 16, 400  # steps of a chain, and characters of a step
_REPORT = re.compile(
    r"\b(?:reports?|reported|radiologists?|impression|indication|clinical history|dictat\w+|the (?:text|plan|evidence)"
    r"|(?:was|were|is|are) (?:given|provided)|according to)\b|_{3,}|XXXX",
    re.IGNORECASE,
)
_OTHER_FILM = re.compile(
    r"\b(?:prior|previous(?:ly)?|compar(?:ed|ison|able)|earlier|interval|(?:un|no )chang\w*|stable|again|since|baseline"
    r"|follow[- ]?up|(?:last|old) (?:film|image|study|exam|x-ray)\w*|worsen\w*|improv\w*|persist\w*|new(?:ly)?|now"
    r"|remain\w*|progress\w*|resol(?:ved|ution|ving))\b",
    re.IGNORECASE,
)


class Problem(NamedTuple):
    """What is wrong with a step (numbered from 0; None: with the whole)."""

    reason: str  # one of a few, by which refusals are counted
    step: int | None
    detail: str


def problems(lexicon: Lexicon, question: Question, steps: Sequence[str]) -> list[Problem]:
    """Why a chain cannot be used; empty for one that can."""
    if not LEAST <= len(steps) <= MOST or not all(step.strip() for step in steps):
        return [Problem("wrong number of steps", None, f"{len(steps)} steps, {LEAST} to {MOST} are asked for")]
    claims = _claims(lexicon, question, steps)
    return [
        *_wording(question, steps),
        *_disagreements(lexicon, question, claims),
        *_answer(lexicon, question, steps, claims),
        *_unnamed(lexicon, question, claims),
    ]


def _claims(lexicon: Lexicon, question: Question, steps: Sequence[str]) -> list[Finding]:
    """What the joined steps assert, each claim with the number of its step."""
    ends, position = [], 0
    for step in steps:
        position += len(step.strip().encode()) + 1
        ends.append(position)
    (reading,) = read_texts(lexicon, [" ".join(step.strip() for step in steps)])
    numbered = (f._replace(step=sum(end <= f.first for end in ends)) for f in reading.findings)
    claims = [f for f in numbered if f.certainty != HYPOTHETICAL]
    return [f._replace(film=f.film or CURRENT) for f in claims] if len(question.references) > 1 else claims


def _wording(question: Question, steps: Sequence[str]) -> Iterator[Problem]:
    """Words of a report, or of films that are not shown."""
    for number, step in enumerate(steps):
        if len(step) > LONGEST:
            yield Problem("a step is too long", number, f"{len(step)} characters, at most {LONGEST}")
        if match := _REPORT.search(step):
            yield Problem("speaks of a report", number, f"{match[0]!r}")
        if len(question.references) < 2 and (match := _OTHER_FILM.search(step)):
            yield Problem("speaks of films that are not shown", number, f"{match[0]!r}")


def _disagreements(lexicon: Lexicon, question: Question, claims: Sequence[Finding]) -> Iterator[Problem]:
    """Claims that the study does not bear out, each about its own film."""
    films = [(0, question.reference)]
    if len(question.references) > 1:
        films = [(EARLIER, question.references[0]), (CURRENT, question.references[1])]
    for film, reference in films:
        of_film = [claim for claim in claims if claim.film == film or len(films) == 1]
        for claim, reason in _unsupported(lexicon, of_film, known_findings(reference), question.change):
            name = lexicon.concepts[claim.concept].name
            says = "absent" if claim.polarity == 0 else "possible" if claim.certainty == HEDGED else "present"
            yield Problem(reason, claim.step, f"{name} {says}")
    if len(films) == 1:
        for claim in claims:
            if claim.film == EARLIER or claim.change:
                name = lexicon.concepts[claim.concept].name
                yield Problem("speaks of films that are not shown", claim.step, f"{name} {CHANGES[claim.change]}")


def known_findings(reference: Reference) -> list[Finding]:
    """What the report says, and the labels that the set alone gives."""
    stated = [
        Finding(LABELS.index(label), int(status.value == "present"), 2)
        for label, status in reference.statuses.items()
        if status.basis == "labels" and status.value != "uncertain"
    ]
    if reference.statuses[NO_FINDING].value == "present":
        stated.append(Finding(LABELS.index(NO_FINDING), 1, 2))
    return [*reference.mentions, *stated]


def _unsupported(
    lexicon: Lexicon, claims: Sequence[Finding], known: Sequence[Finding], change: str
) -> Iterator[tuple[Finding, str]]:
    """Claims that are not right, with the reason."""
    if not claims:
        return
    tables = relations(lexicon)
    evidence = pad_findings([[f._replace(film=0, change=0) for f in known]], max(1, len(known)))
    padded = pad_findings([[f._replace(change=0) for f in claims]], len(claims))
    verdicts = verify.verify(tables, padded, evidence)
    opposed = verify.is_stated(tables, padded._replace(polarity=1 - padded.polarity), evidence)
    for index, claim in enumerate(claims):
        if not verdicts.scored[0, index]:
            continue
        correct = float(verdicts.correct[0, index])
        if correct == 0:
            opposes = bool(opposed[0, index]) or claim.polarity == 0
            yield claim, "contradicts the report" if opposes else "invents a finding"
        elif correct < 1 and claim.certainty != HEDGED:
            yield claim, "is surer than the report"
        elif claim.polarity == 1 and (name := _invented_attribute(tables, claim, known)):
            yield claim, f"invents a {name}"
        elif claim.change and CHANGES[claim.change] != change:
            yield claim, "contradicts the report"


def _invented_attribute(tables: Relations, claim: Finding, known: Sequence[Finding]) -> str:
    """The attribute of a claim that no finding that supports it has."""
    shown = [f for f in known if f.polarity == 1 and tables.is_a[f.concept, claim.concept]]
    sides = 0
    for finding in shown:
        sides |= finding.side
    if claim.side & ~sides:
        return "side"
    for name in ("site", "severity"):
        if getattr(claim, name) and shown and all(getattr(f, name) != getattr(claim, name) for f in shown):
            return "place" if name == "site" else name
    return ""


def _answer(lexicon: Lexicon, question: Question, steps: Sequence[str], claims: Sequence[Finding]) -> Iterator[Problem]:
    """The last step must give the answer: the letter of a closed question, exactly the labels of an open one."""
    last = len(steps) - 1
    if question.options:
        letters = given_letters(steps[last], question.text)
        if letters != {question.answer}:
            given = ", ".join(sorted(letters or ())) or "none"
            yield Problem("ends in another answer", last, f"{given} in place of {question.answer}")
        return
    is_a = relations(lexicon).is_a
    concluded = {f.concept for f in claims if f.step == last and f.polarity == 1}
    gold = {LABELS.index(label) for label in question.gold}
    missing = [label for label in question.gold if not any(is_a[c, LABELS.index(label)] for c in concluded)]
    others = [lexicon.concepts[c].name for c in concluded if not any(is_a[c, label] for label in gold)]
    if missing or others:
        yield Problem("ends in another answer", last, ", ".join([*(f"no {label}" for label in missing), *others]))


def _unnamed(lexicon: Lexicon, question: Question, claims: Sequence[Finding]) -> Iterator[Problem]:
    """Each label that the question names must be spoken of, on every film of a question about two."""
    tables = relations(lexicon)
    films = (0,) if len(question.references) == 1 else (EARLIER, CURRENT)
    for film, reference in zip(films, question.references, strict=True):
        told = [f for f in claims if not film or f.film == film]
        for label in question.named:
            present = reference.statuses[label].value == "present"
            if not any(_tells(tables, finding, label, present) for finding in told):
                yield Problem("leaves out what was asked", None, f"{label} is {'present' if present else 'absent'}")


def _tells(tables: Relations, finding: Finding, label: str, present: bool) -> bool:
    """Whether a claim says that a label is present, or absent. That nothing is found is told by denials, and that it is
    not true by any finding."""
    index = LABELS.index(label)
    if label == NO_FINDING:
        return finding.polarity == (0 if present else 1) or (present and finding.concept == index)
    if present:
        return finding.polarity == 1 and bool(tables.is_a[finding.concept, index])
    denies = finding.polarity == 1 and bool(tables.denies[finding.concept, index])
    return denies or (finding.polarity == 0 and bool(tables.is_a[index, finding.concept]))
