"""Scores of decoded texts on the host, by the rules of training: for other trainers, for files and for people.

numpy alone is imported. The reward in jit (`reward`) and this one read and value a text alike.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from chestx_jax.findings import Finding, Findings, RewardTargets, pad_findings, read_texts, reward_targets
from chestx_jax.findings.slots import HYPOTHETICAL, in_lists
from chestx_jax.labels import TASKS
from chestx_jax.lexicon import Lexicon, relations
from chestx_jax.rewards import outcome_text, priors, process, verify
from chestx_jax.rewards.priors import Priors
from chestx_jax.rewards.value import ValueConfig, Values, values_of
from chestx_jax.rewards.verify import Verdicts

RULES_VERSION = 5  # of reading and valuing; raised when a text may score otherwise with the same lexicon
SLOTS = 128  # findings of a report; no text of 2,000 words has had more
_BLOCK = 256  # texts scored at once

# Verdicts on a claim.
SUPPORTED, PARTLY_SUPPORTED, CONTRADICTED, UNSUPPORTED, NOT_SCORED = (
    "supported", "partly supported", "contradicted", "unsupported", "not scored",
)  # fmt: skip


class Item(NamedTuple):
    """A text and what it is compared with."""

    text: str
    reports: tuple[str, ...]  # one, or the earlier and the current one
    question: str = ""
    task: str = ""  # one of labels.TASKS; "": by the question's form
    answer: str = ""  # the gold one
    steps: tuple[str, ...] = ()  # of the reference reasoning


class ScoredFinding(NamedTuple):
    """A finding of the text, what it adds to the gain, and the verdict on it."""

    finding: Finding
    value: float
    verdict: str
    refuted: bool  # the text itself denies it


class TextScore(NamedTuple):
    """Everything that a text's score rests on."""

    process: float
    gain: float
    terms: dict[str, float]
    findings: list[ScoredFinding]
    report: list[Finding]  # distinct


def score_texts(
    lexicon: Lexicon,
    items: Sequence[Item],
    *,
    rule: str = "additive",
    table: Priors | None = None,
    config: ValueConfig | None = None,
    think_only: bool = False,
) -> list[TextScore]:
    """The scores of texts. A text with a closed think block is read there; one without is read whole, or, with
    `think_only` as in training, not at all.

    `rule` "paper": `process` is the mean truth of the claims. `table`: priors; by default those for texts without a
    question. Raises UserError for a gold answer or task that cannot be read.
    """
    scores: list[TextScore] = []
    for start in range(0, len(items), _BLOCK):
        block = items[start : start + _BLOCK]
        scores += _score_block(
            lexicon, block, rule, table or priors.default(lexicon), config or ValueConfig(), think_only
        )
    return scores


def task_of(item: Item) -> str:
    """The item's task, else what its question's form tells: open without options, closed with them."""
    if item.task or not item.question:
        return item.task
    if len(item.reports) > 1:
        return "temporal"
    if "Options:" not in item.question:
        return "anomaly"
    return "binary" if {"yes", "no"} <= set(item.question.lower().replace("\n", " ").split()) else "single"


def _score_block(
    lexicon: Lexicon, items: Sequence[Item], rule: str, table: Priors, config: ValueConfig, think_only: bool
) -> list[TextScore]:
    tables, tasks = relations(lexicon), [task_of(item) for item in items]
    readings = read_texts(lexicon, [item.text for item in items], think_only=think_only)
    claims = pad_findings([r.findings for r in readings], max(1, *(len(r.findings) for r in readings)))
    questions = priors.read_questions(lexicon, [item.question for item in items], tasks)
    targets = reward_targets(
        lexicon,
        [item.reports for item in items],
        [item.steps for item in items],
        [item.answer for item in items],
        [task or TASKS[0] for task in tasks],
        SLOTS,
        table.stakes(lexicon, tables, questions, config.unasked),
    )
    values = values_of(config, tables, claims, targets)
    verdicts = verify.verify(tables, claims, targets.report)
    verdict_names = _verdict_names(tables, claims, targets, values, verdicts)
    stated = process.target_findings(targets)
    factuality = process.factuality(verdicts)
    columns = {
        "factuality": factuality,
        "completeness": process.completeness(tables, claims, stated),
        "effectiveness": process.effectiveness(tables, claims, stated),
        "findings": verdicts.scored.sum(1),
        "false": values.false.sum(1),
    }
    reports, scores = in_lists(targets.report), []
    for row, (item, reading) in enumerate(zip(items, readings, strict=True)):
        terms = {name: float(column[row]) for name, column in columns.items()}
        if item.answer:
            terms |= outcome_text.terms(item.text, item.answer, tasks[row])
        parts = values.value[row].tolist(), verdict_names[row], values.refuted[row].tolist()
        scored = zip(reading.findings, *parts, strict=False)
        paid = terms["factuality"] if rule == "paper" else float(values.process[row])
        scores.append(
            TextScore(paid, float(values.gain[row]), terms, list(map(ScoredFinding._make, scored)), reports[row])
        )
    return scores


def _verdict_names(
    tables, claims: Findings, targets: RewardTargets, values: Values, verdicts: Verdicts
) -> list[list[str]]:
    """The verdict on each claim: by the report where it speaks, else by its silence."""
    opposite = claims._replace(polarity=1 - claims.polarity)
    opposed = verify.is_stated(tables, opposite, targets.report) | (values.false & (claims.polarity == 0))
    supported = np.where(claims.polarity == 1, values.supported | (verdicts.correct > 0), verdicts.correct > 0)
    names = np.select(
        [
            ~verdicts.scored | (claims.certainty == HYPOTHETICAL) | ~targets.has_report[:, None],
            supported & (verdicts.correct > 0.99),
            supported,
            opposed,
        ],
        [NOT_SCORED, SUPPORTED, PARTLY_SUPPORTED, CONTRADICTED],
        UNSUPPORTED,
    )
    return names.tolist()
