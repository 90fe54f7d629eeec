"""The offline judge: RadRScore from the lexicon's findings, no network, one verdict per finding.

The terms rest on the reward's verdicts (`rewards.verify`), here over host-side readings,
so that training and evaluation mean the same thing by a finding and by its truth. Factuality and completeness are
averaged as the release's judge does it: `process.precision` goes by sentence and gives half credit for what only
inference supports, `process.recall` and `process.efficiency` also credit findings that the reasoning considers without
stating them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from chestx_jax.data.schema import Drawn, parse_drawn
from chestx_jax.eval.answers.parsing import reasoning_text
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.findings import Finding, Reading, pad_findings, read_texts, reward_targets
from chestx_jax.labels import LABELS
from chestx_jax.lexicon import Lexicon, relations
from chestx_jax.lexicon.lexicon import SIDES
from chestx_jax.rewards import priors, process, verify
from chestx_jax.rewards.texts import CONTRADICTED, NOT_SCORED, SUPPORTED, UNSUPPORTED
from chestx_jax.rewards.value import ValueConfig, values_of

POLARITIES = ("absent", "present")
CERTAINTIES = ("hypothetical", "hedged", "asserted")
LUNG_OPACITIES = ("Atelectasis", "Consolidation", "Edema", "Lung Lesion", "Pneumonia")
INFERRED = "inferred"  # a verdict of the judge alone; the others are those of `rewards.explain`
BLOCK = 256  # predictions judged at a time
GOLD_SLOTS = 128  # findings of a report, and of the reference steps; no text of 2,000 words has had more


@dataclass(frozen=True)
class Mark:
    """One finding of the reasoning, where it stands (characters of `reasoning_text`), and the verdict on it."""

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
    """Scores of one prediction, in [0, 1] but for `process`; None without a report. `claims`: distinct ones."""

    factuality: float | None
    completeness: float | None
    effectiveness: float | None
    radrscore: float | None
    process: float | None  # the value that training pays, in [-1, 1] (`rewards.value`)
    ground_truth_factuality: float | None
    claims: float
    marks: tuple[Mark, ...]


def judge_all(predictions: Sequence[Prediction], lexicon: Lexicon) -> list[Judgement]:
    """Judges each prediction's reasoning against its report(s), reference steps and, for phantoms, the drawn truth."""
    texts = [reasoning_text(prediction.pred) for prediction in predictions]
    readings = read_texts(lexicon, texts)
    judgements: list[Judgement] = []
    for start in range(0, len(predictions), BLOCK):
        block, of_block = predictions[start : start + BLOCK], slice(start, start + BLOCK)
        terms = _judge_block(lexicon, block, readings[of_block])
        parts = zip(block, texts[of_block], readings[of_block], terms, strict=True)
        judgements += [_judgement(*of_prediction, lexicon) for of_prediction in parts]
    return judgements


class _Terms(NamedTuple):
    """Of each prediction: the three terms of RadRScore, the process value, and the verdicts on each slot."""

    factuality: np.ndarray
    completeness: np.ndarray
    effectiveness: np.ndarray
    process: np.ndarray
    scored: np.ndarray
    right: np.ndarray
    inferred: np.ndarray
    opposed: np.ndarray


def _judge_block(lexicon: Lexicon, block: Sequence[Prediction], readings: Sequence[Reading]) -> Iterator[_Terms]:
    questions = priors.read_questions(lexicon, [p.question for p in block], [p.task for p in block])
    tables, value = relations(lexicon), ValueConfig()
    gold = reward_targets(
        lexicon,
        [p.reports for p in block],
        [p.steps for p in block],
        [""] * len(block),
        [p.task for p in block],
        GOLD_SLOTS,
        priors.default(lexicon).stakes(lexicon, tables, questions, value.unasked),
    )
    claims = pad_findings([reading.findings for reading in readings], max(1, *(len(r.findings) for r in readings)))
    stated = process.target_findings(gold)
    verdicts = verify.verify(tables, claims, gold.report)
    terms = _Terms(
        factuality=process.precision(tables, claims, gold.report, verdicts),
        completeness=process.recall(tables, claims, stated),
        effectiveness=process.efficiency(tables, claims, stated),
        process=values_of(value, tables, claims, gold).process,
        scored=verdicts.scored,
        right=verdicts.correct > 0,
        inferred=verify.is_inferred(tables, claims, gold.report, verdicts),
        opposed=verify.is_stated(tables, claims._replace(polarity=1 - claims.polarity), gold.report),
    )
    return map(_Terms._make, zip(*terms, strict=True))


def _judgement(prediction: Prediction, text: str, reading: Reading, terms: _Terms, lexicon: Lexicon) -> Judgement:
    judged = any(report.strip() for report in prediction.reports)
    values: Sequence[float | None] = [float(term) for term in terms[:4]] if judged else [None] * 4
    claims = [finding for slot, finding in enumerate(reading.findings) if terms.scored[slot]]
    distinct = {(finding.concept, finding.polarity) for finding in claims}
    offsets = _characters(text)
    marks = [
        _mark(finding, _verdict(finding, slot, terms) if judged else NOT_SCORED, offsets, lexicon)
        for slot, finding in enumerate(reading.findings)
        if not lexicon.concepts[finding.concept].general
    ]
    return Judgement(
        factuality=values[0],
        completeness=values[1],
        effectiveness=values[2],
        radrscore=sum(value for value in values[:3] if value is not None) / 3 if judged else None,
        process=values[3],
        ground_truth_factuality=_ground_truth_factuality(claims, prediction.drawn),
        claims=float(len(distinct)),
        marks=tuple(marks),
    )


def _verdict(finding: Finding, slot: int, terms: _Terms) -> str:
    if not terms.scored[slot]:
        return NOT_SCORED
    if terms.right[slot]:
        return INFERRED if terms.inferred[slot] else SUPPORTED
    return CONTRADICTED if terms.opposed[slot] or not finding.polarity else UNSUPPORTED


def _ground_truth_factuality(claims: Sequence[Finding], drawn: Sequence[str] | None) -> float | None:
    """Share of the claims about the 12 labels that the drawing confirms, sides included; None without any."""
    if drawn is None:
        return None
    truth = [parse_drawn(text) for text in drawn]
    distinct = _once([finding for finding in claims if finding.concept < len(LABELS)])
    return sum(_drawn_true(finding, truth) for finding in distinct) / len(distinct) if distinct else None


def _once(claims: Sequence[Finding]) -> list[Finding]:
    """Each concept and polarity once: its first mention with a side, else its first."""
    first: dict[tuple[int, int], Finding] = {}
    for claim in claims:
        key = (claim.concept, claim.polarity)
        if key not in first or (claim.side and not first[key].side):
            first[key] = claim
    return list(first.values())


def _drawn_true(finding: Finding, truth: Sequence[Drawn]) -> bool:
    label = LABELS[finding.concept]
    if label == "No Finding":
        return bool(finding.polarity) == (not truth)
    sides = [SIDES.index(drawn.side) for drawn in truth if label in _kinds(drawn.label)]
    present = any(not finding.side or side in (0, finding.side, 3) for side in sides)  # 0: no side drawn, 3: both
    return bool(finding.polarity) == present


def _kinds(label: str) -> tuple[str, ...]:
    """A drawn label and those of the 12 that include it, in the phantom's tree, which is coarser than the lexicon's."""
    if label in LUNG_OPACITIES:
        return label, "Lung Opacity"
    return (label, "Enlarged Cardiomediastinum") if label == "Cardiomegaly" else (label,)


def _characters(text: str) -> list[int]:
    """Character index of every byte of the UTF-8 text, and of its end."""
    return [i for i, character in enumerate(text) for _ in character.encode("utf-8", "surrogatepass")] + [len(text)]


def _mark(finding: Finding, verdict: str, offsets: Sequence[int], lexicon: Lexicon) -> Mark:
    return Mark(
        lexicon.concepts[finding.concept].name,
        POLARITIES[finding.polarity],
        CERTAINTIES[finding.certainty],
        SIDES[finding.side],
        finding.step,
        verdict,
        offsets[finding.first],
        offsets[finding.last] + 1,
    )
