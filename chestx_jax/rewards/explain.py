"""Why a reasoning scores as it does: each sentence with its findings, their verdicts and the evidence, as plain data.

The same `Step` records feed the console, JSON and the HTML pages.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from chestx_jax.lexicon.extract import extract, rows
from chestx_jax.lexicon.lexicon import CHANGES, SIDES, Lexicon
from chestx_jax.lexicon.scopes import Finding
from chestx_jax.lexicon.token_tables import Relations, relations
from chestx_jax.rewards import verify

CORRECT, PARTIAL, WRONG, UNSCORED = "correct", "partial", "wrong", "not scored"
_COLOURS = {CORRECT: "32", PARTIAL: "33", WRONG: "31", UNSCORED: "90"}


@dataclass(frozen=True)
class Judged:
    """One finding with its verdict. `start` and `end` are byte offsets in the sentence's text (end exclusive)."""

    concept: str
    words: str
    start: int
    end: int
    says: str  # "present", "possibly absent", …
    side: str
    change: str
    verdict: str
    why: str


@dataclass(frozen=True)
class Step:
    """One sentence of the reasoning."""

    text: str
    findings: tuple[Judged, ...]
    score: float | None  # mean correctness of its scored findings


def explain(lexicon: Lexicon, text: str, reports: Sequence[str], *, think_only: bool = False) -> list[Step]:
    """Judge each sentence of a text by the reports (none: nothing can be verified and every claim is unscored)."""
    data = text.encode("utf-8", "surrogatepass")
    claims = extract(lexicon, text, think_only=think_only)
    evidence = [(finding, report) for report in reports for finding in extract(lexicon, report)]
    correct = _verdicts(lexicon, claims, [finding for finding, _ in evidence])
    steps = []
    for number in sorted({claim.step for claim in claims}):
        mine = [place for place, claim in enumerate(claims) if claim.step == number]
        start, end = _sentence(data, claims[mine[0]].first, claims[mine[-1]].last)
        judged = tuple(
            _judge(lexicon, data, start, claims[place], correct[place], evidence, bool(reports)) for place in mine
        )
        scored = [correct[place] for place in mine if claims[place].certainty and reports]
        steps.append(Step(data[start:end].decode(errors="replace"), judged, float(np.mean(scored)) if scored else None))
    return steps


def as_json(steps: Sequence[Step]) -> str:
    """The steps as a JSON list."""
    return json.dumps([asdict(step) for step in steps], indent=2, ensure_ascii=False)


def as_text(steps: Sequence[Step], colour: bool) -> str:
    """The steps for a terminal: the sentence with its findings marked, a line for each finding."""
    lines = []
    for number, step in enumerate(steps, 1):
        score = "   –" if step.score is None else f"{step.score:4.2f}"
        lines.append(f"{number:2d} [{score}] {_marked(step, colour)}")
        for finding in step.findings:
            detail = ", ".join(filter(None, (finding.says, finding.side, finding.change)))
            lines.append(
                _paint(
                    f"      {finding.concept} ({detail}): {finding.verdict} – {finding.why}", finding.verdict, colour
                )
            )
    return "\n".join(lines)


def _verdicts(lexicon: Lexicon, claims: list[Finding], evidence: list[Finding]) -> np.ndarray:
    tables = Relations(**relations(lexicon))
    pair = rows([claims], max(len(claims), 1)), rows([evidence], max(len(evidence), 1))
    return np.asarray(verify.verify(tables, *pair).correct)[0]


def _judge(
    lexicon: Lexicon, data: bytes, start: int, claim: Finding, correct: float, evidence: list, has_report: bool
) -> Judged:
    concept = lexicon.concepts[claim.concept]
    if not claim.certainty:
        verdict, why = UNSCORED, "it supposes, defines or asks; it asserts nothing"
    elif concept.general:
        verdict, why = UNSCORED, "too general to be right or wrong"
    elif not has_report:
        verdict, why = UNSCORED, "there is no report to compare with"
    else:
        verdict = CORRECT if correct > 0.99 else PARTIAL if correct > 0 else WRONG
        why = _why(lexicon, claim, correct, evidence)
    hedge = "possibly " if claim.certainty == 1 else ""
    return Judged(
        concept.name, data[claim.first : claim.last + 1].decode(errors="replace"), claim.first - start,
        claim.last + 1 - start, hedge + ("present" if claim.polarity else "absent"), SIDES[claim.side],
        CHANGES[claim.change], verdict, why,
    )  # fmt: skip


def _why(lexicon: Lexicon, claim: Finding, correct: float, evidence: list[tuple[Finding, str]]) -> str:
    table = relations(lexicon)
    is_a, denies = table["is_a"], table["denies"]
    for finding, report in evidence:
        related = is_a[finding.concept, claim.concept] or is_a[claim.concept, finding.concept]
        if finding.certainty and (
            related or denies[finding.concept, claim.concept] or denies[claim.concept, finding.concept]
        ):
            words = report.encode()
            start, end = _sentence(words, finding.first, finding.last)
            quoted = words[start:end].decode(errors="replace")
            return f"the report says: “{quoted}”" + (" (one of the two hedges)" if 0 < correct < 0.99 else "")
    if claim.polarity:
        return "the report does not mention it"
    return "the report does not mention it, which means it is normal" if correct else "the report does not bear it out"


def _sentence(data: bytes, first: int, last: int) -> tuple[int, int]:
    """A sentence around two offsets, as far as full stops before spaces and line ends tell."""
    start, end = first, last + 1
    while start > 0 and not (
        data[start - 1 : start] in (b"\n", b">") or data[start - 2 : start] in (b". ", b"? ", b"! ")
    ):
        start -= 1
    while end < len(data) and data[end : end + 1] not in (b"\n", b"<"):
        end += 1
        if data[end - 1 : end] in (b".", b"?", b"!") and data[end : end + 1] in (b" ", b"", b"\n"):
            break
    while start < first and data[start : start + 1] == b" ":
        start += 1
    return start, end


def _marked(step: Step, colour: bool) -> str:
    data, pieces, at = step.text.encode(), [], 0
    for finding in sorted(step.findings, key=lambda item: item.start):
        if finding.start < at:
            continue
        pieces.append(data[at : finding.start].decode(errors="replace"))
        pieces.append(_paint(data[finding.start : finding.end].decode(errors="replace"), finding.verdict, colour))
        at = finding.end
    return "".join([*pieces, data[at:].decode(errors="replace")])


def _paint(text: str, verdict: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS[verdict]}m{text}\x1b[0m" if colour else text
