"""Why a reasoning scores as it does: each sentence with its findings, their verdicts and the evidence as data."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from chestx_jax.findings import Finding, extract, pad_findings, read_reports
from chestx_jax.lexicon.lexicon import CHANGES, SIDES, Lexicon
from chestx_jax.lexicon.tables import relations
from chestx_jax.rewards import verify

SUPPORTED, PARTLY_SUPPORTED, CONTRADICTED, UNSUPPORTED, NOT_SCORED = (
    "supported", "partly supported", "contradicted", "unsupported", "not scored",
)  # fmt: skip
_COLOURS = {SUPPORTED: "32", PARTLY_SUPPORTED: "33", CONTRADICTED: "31", UNSUPPORTED: "35", NOT_SCORED: "90"}


@dataclass(frozen=True)
class JudgedFinding:
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
    findings: tuple[JudgedFinding, ...]
    score: float | None  # mean correctness of its scored findings


def explain(lexicon: Lexicon, text: str, reports: Sequence[str], *, think_only: bool = False) -> list[Step]:
    """Judge each sentence of a text by the reports; without a report no claim is scored.

    `think_only`: see `findings.extract`.
    """
    data = text.encode("utf-8", "surrogatepass")
    claims = extract(lexicon, text, think_only=think_only)
    evidence = [(finding, report) for report in reports for finding in read_reports(lexicon, [report])[0].findings]
    correct, opposed = _compare(lexicon, claims, [finding for finding, _ in evidence])
    steps = []
    for step in sorted({claim.step for claim in claims}):
        indices = [index for index, claim in enumerate(claims) if claim.step == step]
        start, end = _sentence(data, claims[indices[0]].first, claims[indices[-1]].last)
        judged = []
        for index in indices:
            verdict, why = _verdict(lexicon, claims[index], correct[index], opposed[index], evidence, bool(reports))
            judged.append(_judged(lexicon, data, start, claims[index], verdict, why))
        scored = [correct[index] for index in indices if claims[index].certainty and reports]
        score = float(np.mean(scored)) if scored else None
        steps.append(Step(data[start:end].decode(errors="replace"), tuple(judged), score))
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
            details = ", ".join(filter(None, (finding.says, finding.side, finding.change)))
            line = f"      {finding.concept} ({details}): {finding.verdict} – {finding.why}"
            lines.append(_paint(line, finding.verdict, colour))
    return "\n".join(lines)


def _compare(lexicon: Lexicon, claims: list[Finding], evidence: list[Finding]) -> tuple[np.ndarray, np.ndarray]:
    """Correctness of each claim, and whether the evidence states its opposite."""
    tables = relations(lexicon)
    claims_1xM, evidence_1xR = (pad_findings([findings], max(len(findings), 1)) for findings in (claims, evidence))
    opposites = claims_1xM._replace(polarity=1 - claims_1xM.polarity)
    correct = verify.verify(tables, claims_1xM, evidence_1xR).correct
    return np.asarray(correct)[0], np.asarray(verify.is_stated(tables, opposites, evidence_1xR))[0]


def _verdict(
    lexicon: Lexicon, claim: Finding, correct: float, opposed: bool, evidence: list, has_report: bool
) -> tuple[str, str]:
    """The verdict on a claim and the reason for it."""
    if not claim.certainty:
        return NOT_SCORED, "a supposition, definition or question asserts nothing"
    if lexicon.concepts[claim.concept].general:
        return NOT_SCORED, "too general to be right or wrong"
    if not has_report:
        return NOT_SCORED, "there is no report to compare with"
    why = _reason(lexicon, claim, correct, evidence)
    if correct > 0:
        return SUPPORTED if correct > 0.99 else PARTLY_SUPPORTED, why
    return CONTRADICTED if opposed or not claim.polarity else UNSUPPORTED, why


def _judged(lexicon: Lexicon, data: bytes, start: int, claim: Finding, verdict: str, why: str) -> JudgedFinding:
    hedge = "possibly " if claim.certainty == 1 else ""
    return JudgedFinding(
        concept=lexicon.concepts[claim.concept].name,
        words=data[claim.first : claim.last + 1].decode(errors="replace"),
        start=claim.first - start,
        end=claim.last + 1 - start,
        says=hedge + ("present" if claim.polarity else "absent"),
        side=SIDES[claim.side],
        change=CHANGES[claim.change],
        verdict=verdict,
        why=why,
    )


def _reason(lexicon: Lexicon, claim: Finding, correct: float, evidence: list[tuple[Finding, str]]) -> str:
    """The sentence of the report that bears on the claim, or what its silence means."""
    concepts = relations(lexicon)
    bears_on = concepts.is_a | concepts.is_a.T | concepts.denies | concepts.denies.T
    for finding, report in evidence:
        if finding.certainty and bears_on[finding.concept, claim.concept]:
            data = report.encode()
            start, end = _sentence(data, finding.first, finding.last)
            quoted = data[start:end].decode(errors="replace")
            return f"the report says: “{quoted}”" + (" (one of the two hedges)" if 0 < correct < 0.99 else "")
    if claim.polarity:
        return "the report does not mention it"
    return "the report does not mention it, which means normal" if correct else "the report does not support it"


def _sentence(data: bytes, first: int, last: int) -> tuple[int, int]:
    """Start and end of the sentence around two offsets, by full stops before spaces, line ends and tags."""
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
    """The sentence with its findings in the colours of their verdicts; of overlapping ones the first."""
    data, pieces, position = step.text.encode(), [], 0
    for finding in sorted(step.findings, key=lambda finding: finding.start):
        if finding.start < position:
            continue
        pieces.append(data[position : finding.start].decode(errors="replace"))
        pieces.append(_paint(data[finding.start : finding.end].decode(errors="replace"), finding.verdict, colour))
        position = finding.end
    return "".join([*pieces, data[position:].decode(errors="replace")])


def _paint(text: str, verdict: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS[verdict]}m{text}\x1b[0m" if colour else text
