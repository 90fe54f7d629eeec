"""Why a reasoning scores as it does: each sentence with its findings, their verdicts and the evidence as data."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from chestx_jax.findings import Finding, read_reports
from chestx_jax.findings.sections import sentence_span
from chestx_jax.lexicon.lexicon import CHANGES, SIDES, Lexicon
from chestx_jax.lexicon.tables import relations
from chestx_jax.rewards.priors import Priors
from chestx_jax.rewards.texts import (
    CONTRADICTED,
    NOT_SCORED,
    PARTLY_SUPPORTED,
    SUPPORTED,
    UNSUPPORTED,
    Item,
    ScoredFinding,
    score_texts,
)

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
    value: float  # what it adds to the text's gain
    verdict: str
    why: str


@dataclass(frozen=True)
class Step:
    """One sentence of the reasoning."""

    text: str
    findings: tuple[JudgedFinding, ...]
    value: float | None  # sum of its findings' values


def explain(
    lexicon: Lexicon, item: Item, *, rule: str = "additive", table: Priors | None = None, think_only: bool = False
) -> list[Step]:
    """Judge each sentence of a text by its reports; without a report no claim is scored.

    `rule`, `table`, `think_only`: see `texts.score_texts`.
    """
    data = item.text.encode("utf-8", "surrogatepass")
    scored = score_texts(lexicon, [item], rule=rule, table=table, think_only=think_only)[0].findings
    readings = read_reports(lexicon, item.reports)
    evidence = [
        (finding, report)
        for report, reading in zip(item.reports, readings, strict=True)
        for finding in reading.findings
    ]
    steps = []
    for step in sorted({finding.finding.step for finding in scored}):
        of_step = [finding for finding in scored if finding.finding.step == step]
        start, end = sentence_span(data, of_step[0].finding.first, of_step[-1].finding.last)
        judged = tuple(
            _judged(lexicon, data, start, finding, _why(lexicon, finding, evidence, bool(item.reports)))
            for finding in of_step
        )
        value = sum(finding.value for finding in of_step)
        steps.append(Step(data[start:end].decode(errors="replace"), judged, value if item.reports else None))
    return steps


def as_json(steps: Sequence[Step]) -> str:
    """The steps as a JSON list."""
    return json.dumps([asdict(step) for step in steps], indent=2, ensure_ascii=False)


def as_text(steps: Sequence[Step], colour: bool) -> str:
    """The steps for a terminal: the sentence with its findings marked, a line for each finding."""
    lines = []
    for number, step in enumerate(steps, 1):
        value = "    –" if step.value is None else f"{step.value:+5.2f}"
        lines.append(f"{number:2d} [{value}] {_marked(step, colour)}")
        for finding in step.findings:
            details = ", ".join(filter(None, (finding.says, finding.side, finding.change)))
            line = f"      {finding.value:+5.2f} {finding.concept} ({details}): {finding.verdict} – {finding.why}"
            lines.append(_paint(line, finding.verdict, colour))
    return "\n".join(lines)


def _why(lexicon: Lexicon, scored: ScoredFinding, evidence: list[tuple[Finding, str]], has_report: bool) -> str:
    """The reason for a verdict."""
    claim = scored.finding
    if not claim.certainty:
        return "a supposition, definition or question asserts nothing"
    if lexicon.concepts[claim.concept].general:
        return "too general to be right or wrong"
    if not has_report:
        return "there is no report to compare with"
    reason = _reason(lexicon, claim, scored.verdict, evidence)
    return f"{reason}; the text denies it too, so that it earns nothing" if scored.refuted else reason


def _judged(lexicon: Lexicon, data: bytes, start: int, scored: ScoredFinding, why: str) -> JudgedFinding:
    claim = scored.finding
    hedge = "possibly " if claim.certainty == 1 else ""
    return JudgedFinding(
        concept=lexicon.concepts[claim.concept].name,
        words=data[claim.first : claim.last + 1].decode(errors="replace"),
        start=claim.first - start,
        end=claim.last + 1 - start,
        says=hedge + ("present" if claim.polarity else "absent"),
        side=SIDES[claim.side],
        change=CHANGES[claim.change],
        value=scored.value,
        verdict=scored.verdict,
        why=why,
    )


def _reason(lexicon: Lexicon, claim: Finding, verdict: str, evidence: list[tuple[Finding, str]]) -> str:
    """The sentence of the report that bears on the claim, or what its silence means."""
    concepts = relations(lexicon)
    bears_on = (concepts.credit > 0) | concepts.denies | concepts.denies.T
    related = [pair for pair in evidence if pair[0].certainty and bears_on[pair[0].concept, claim.concept]]
    if related:
        finding, report = max(related, key=lambda pair: concepts.credit[claim.concept, pair[0].concept])
        data = report.encode("utf-8", "surrogatepass")
        start, end = sentence_span(data, finding.first, finding.last)
        quoted = data[start:end].decode(errors="replace")
        return f"the report says: “{quoted}”" + (" (not quite the same)" if verdict == PARTLY_SUPPORTED else "")
    if claim.polarity:
        return "the report does not mention it"
    return (
        "the report does not mention it, which means normal"
        if verdict == SUPPORTED
        else "the report does not support it"
    )


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
