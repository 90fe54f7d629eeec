"""The offline judge: RadRScore from the lexicon's findings, no network, one verdict per finding.

The rules are the release's (facts of the public evaluation of arXiv 2504.20930), without the training reward's guards:
a finding called present is true if the report says so, false if the report denies or does not mention it; one called
absent is true unless the report says it is present. Hypothetical findings are not scored; a hedged one that would be
false earns half.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from chestx_jax.data.schema import Drawn, parse_drawn
from chestx_jax.eval.answers import reasoning_text
from chestx_jax.eval.records import Prediction
from chestx_jax.lexicon import Finding, Lexicon, automaton, scopes
from chestx_jax.lexicon.vocabulary import relations
from chestx_jax.lexicon.words import words
from chestx_jax.types import LABELS

POLARITIES = ("absent", "present")
CERTAINTIES = ("hypothetical", "hedged", "asserted")
SIDES = ("", "left", "right", "both")
LUNG_OPACITIES = ("Atelectasis", "Consolidation", "Edema", "Lung Lesion", "Pneumonia")
SUPPORTED, CONTRADICTED, UNSUPPORTED, NOT_SCORED = "supported", "contradicted", "unsupported", "not scored"


@dataclass(frozen=True)
class Mark:
    """One finding of the reasoning: what it says, where (characters of `reasoning_text`), and what becomes of it."""

    concept: str
    polarity: str
    certainty: str
    side: str
    step: int
    verdict: str
    start: int
    end: int

    @property
    def label(self) -> str:
        """In words: `left Pleural Effusion, absent`."""
        hedge = "" if self.certainty == "asserted" else f", {self.certainty}"
        return f"{self.side} {self.concept}, {self.polarity}{hedge}".strip()


@dataclass(frozen=True)
class Judgement:
    """Scores of one prediction in [0, 1], None with nothing to judge against; `claims` counts the findings scored."""

    factuality: float | None
    completeness: float | None
    effectiveness: float | None
    radrscore: float | None
    drawn_factuality: float | None
    claims: float
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Reading:
    """A text's findings in order and its number of sentences."""

    findings: tuple[Finding, ...]
    sentences: int


@dataclass(frozen=True)
class Rules:
    """A lexicon made ready for judging. `read` remembers texts, since reports and steps come back for every model."""

    names: tuple[str, ...]
    is_a: np.ndarray  # bool[C, C]
    denies: np.ndarray  # bool[C, C]
    counted: np.ndarray  # bool[C]
    read: Callable[[str], Reading]


def rules(lexicon: Lexicon) -> Rules:
    """The rules over one lexicon."""
    machine = automaton.build(lexicon)

    @cache
    def read(text: str) -> Reading:
        found = words(lexicon, machine, text.encode("utf-8", "surrogatepass"))
        return Reading(tuple(scopes.findings(lexicon, machine, found)), sum(word.boundary for word in found[:-1]))

    return Rules(tuple(concept.name for concept in lexicon.concepts), read=read, **relations(lexicon))


def judge(prediction: Prediction, by: Rules) -> Judgement:
    """Judges one prediction's reasoning against its report(s), reference steps and, for phantoms, the drawn truth."""
    text = reasoning_text(prediction.pred)
    reading = by.read(text)
    said = [finding for finding in reading.findings if by.counted[finding.concept]]
    claims = _once(said)
    report = _findings(prediction.reports, by)
    steps = _findings(prediction.steps, by) if report is not None else None  # no report, no scores
    verdicts = [NOT_SCORED if report is None else _verdict(finding, report, by) for finding in said]
    credit = {id(f): _credit(f, verdict) for f, verdict in zip(said, verdicts, strict=True)}
    factuality = None if report is None else _mean([credit[id(finding)] for finding in claims])
    completeness = None if steps is None else _completeness(claims, steps, by)
    effectiveness = None if steps is None else _effectiveness(said, steps, reading.sentences, by)
    terms = [term for term in (factuality, completeness, effectiveness) if term is not None]
    offsets = _characters(text)
    return Judgement(
        factuality,
        completeness,
        effectiveness,
        sum(terms) / 3 if len(terms) == 3 else None,
        _drawn_factuality(claims, prediction.drawn),
        float(len(claims)),
        tuple(_mark(f, verdict, offsets, by) for f, verdict in zip(said, verdicts, strict=True)),
    )


def stated(finding: Finding, others: Sequence[Finding], by: Rules) -> bool:
    """Whether `others` say the same: presence of it or of a kind of it, on a side that fits; absence of what it is."""
    return any(
        _present_as(finding, other, by) if finding.polarity else _absent_as(finding, other, by) for other in others
    )


def opposed(finding: Finding, others: Sequence[Finding], by: Rules) -> bool:
    """Whether `others` say the opposite."""
    return any(
        _absent_as(finding, other, by) if finding.polarity else _present_as(finding, other, by) for other in others
    )


def _present_as(finding: Finding, other: Finding, by: Rules) -> bool:
    kind = by.is_a[other.concept, finding.concept]
    return bool(other.polarity and other.certainty and kind and _sides_fit(finding.side, other.side))


def _absent_as(finding: Finding, other: Finding, by: Rules) -> bool:
    if other.polarity:
        return bool(other.certainty == 2 and by.denies[other.concept, finding.concept])
    # "No left effusion" says nothing of the right one.
    return bool(other.certainty and by.is_a[finding.concept, other.concept] and _sides_fit(other.side, finding.side))


def _verdict(finding: Finding, report: Sequence[Finding], by: Rules) -> str:
    if not finding.certainty:
        return NOT_SCORED
    if stated(finding, report, by):
        return SUPPORTED
    if opposed(finding, report, by):
        return CONTRADICTED
    return UNSUPPORTED if finding.polarity else SUPPORTED


def _findings(texts: Sequence[str], by: Rules) -> list[Finding] | None:
    """All findings of the texts; None where there is no text."""
    return [finding for text in texts for finding in by.read(text).findings] if texts else None


def _credit(finding: Finding, verdict: str) -> float:
    if verdict == SUPPORTED:
        return 1.0
    return 0.5 if finding.certainty == 1 else 0.0


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """Scored findings, each concept and polarity once: its first mention with a side, else its first."""
    kept: dict[tuple[int, int], Finding] = {}
    for finding in findings:
        key = (finding.concept, finding.polarity)
        if finding.certainty and (key not in kept or (finding.side and not kept[key].side)):
            kept[key] = finding
    return list(kept.values())


def _completeness(claims: Sequence[Finding], steps: Sequence[Finding], by: Rules) -> float | None:
    """Share of the reference's findings that are stated with the same polarity; None if it makes none."""
    wanted = [finding for finding in _once(steps) if by.counted[finding.concept]]
    return _mean([float(stated(finding, claims, by)) for finding in wanted]) if wanted else None


def _effectiveness(said: Sequence[Finding], steps: Sequence[Finding], sentences: int, by: Rules) -> float:
    """Share of the sentences that carry a finding the reference steps state."""
    good = {finding.step for finding in said if finding.certainty and stated(finding, steps, by)}
    return len(good) / sentences if sentences else 0.0


def _drawn_factuality(claims: Sequence[Finding], drawn: Sequence[str] | None) -> float | None:
    """Share of the claims about the 12 labels that the drawing bears out, sides included; None without any."""
    if drawn is None:
        return None
    truth = [parse_drawn(text) for text in drawn]
    about = [f for f in claims if f.concept < len(LABELS)]
    return _mean([float(_drawn_true(f, truth)) for f in about]) if about else None


def _drawn_true(finding: Finding, truth: Sequence[Drawn]) -> bool:
    label = LABELS[finding.concept]
    if label == "No Finding":
        return bool(finding.polarity) == (not truth)
    found = any(label in _kinds(d.label) and _sides_fit(finding.side, SIDES.index(d.side)) for d in truth)
    return bool(finding.polarity) == found


def _kinds(label: str) -> tuple[str, ...]:
    """What a drawn label also is, of the 12: the phantom's own account, whatever finer tree the lexicon keeps."""
    if label in LUNG_OPACITIES:
        return label, "Lung Opacity"
    return (label, "Enlarged Cardiomediastinum") if label == "Cardiomegaly" else (label,)


def _sides_fit(asked: int, found: int) -> bool:
    """Whether what is said of side `asked` is borne out by `found`; unsaid fits any, both bears out each."""
    return not asked or not found or asked == found or found == 3


def _mean(values: Sequence[float]) -> float:
    """0 for an empty list, which says nothing true."""
    return sum(values) / len(values) if values else 0.0


def _characters(text: str) -> list[int]:
    """Character index of every byte of the UTF-8 text, and of its end."""
    return [i for i, character in enumerate(text) for _ in character.encode("utf-8", "surrogatepass")] + [len(text)]


def _mark(finding: Finding, verdict: str, offsets: Sequence[int], by: Rules) -> Mark:
    return Mark(
        by.names[finding.concept],
        POLARITIES[finding.polarity],
        CERTAINTIES[finding.certainty],
        SIDES[finding.side],
        finding.step,
        verdict,
        offsets[finding.first],
        offsets[finding.last] + 1,
    )
