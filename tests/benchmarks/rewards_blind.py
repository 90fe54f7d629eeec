"""What can be had without the film: `python -m tests.benchmarks.rewards_blind [FAMILY …]`.

For each family of questions, made from the findings of half of the Open-i reports (even uid), priors are counted and
the best blind text is searched for greedily over all claims of the lexicon (with each side, hedged, denied): one text a
family and, where questions ask for one concept, one for each concept. Printed is its mean gain on the questions of the
other half, with its 95 % interval; and that of texts that know the question: the likeliest of what is named claimed and
the rest denied, all denied, all claimed.
"""

import csv
import random
import sys
from collections.abc import Sequence

import numpy as np

from chestx_jax.findings import ASSERTED, HEDGED, Finding, Findings, pad_findings, read_reports
from chestx_jax.findings.targets import Stakes, distinct, report_findings
from chestx_jax.lexicon import load, relations
from chestx_jax.rewards import priors
from chestx_jax.rewards.priors import Question
from chestx_jax.rewards.value import ValueConfig, Worth, claim_values, report_worth
from tests.helpers.paths import DATA

FAMILIES = ("", "anomaly", "binary", "single", "multiple")
LEXICON, CONFIG = load(), ValueConfig()
RELATIONS, LABELS = relations(LEXICON), range(12)
MOST, STEPS, KEPT, CHUNK = 200, 5, 150, 12  # questions a label, claims a text, candidates after the first, at once


def read_halves() -> tuple[list[list[Finding]], list[list[Finding]]]:
    """The distinct findings of the reports with even and with odd uid."""
    with (DATA / "openi/indiana_reports.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    readings = read_reports(LEXICON, [f"{row['findings']}\n\n{row['impression']}" for row in rows])
    findings = [distinct(report_findings([reading.findings])) for reading in readings]
    halves = [[f for row, f in zip(rows, findings, strict=True) if int(row["uid"]) % 2 == parity] for parity in (0, 1)]
    return halves[0], halves[1]


def questions(reports: Sequence[Sequence[Finding]], family: str, seed: int) -> list[tuple[int, Question]]:
    """Questions about reports: the report's number and what is asked."""
    rng = random.Random(seed)
    shown = [
        [label for label in LABELS if any(f.polarity and RELATIONS.is_a[f.concept, label] for f in findings)]
        for findings in reports
    ]
    made: list[tuple[int, Question]] = []
    if family in ("", "anomaly"):
        made = [(number, Question(family)) for number in range(len(reports))]
    for label in LABELS if family in ("binary", "single") else ():
        with_label = [number for number in range(len(reports)) if label in shown[number]]
        rng.shuffle(with_label)
        if family == "binary":
            without = [number for number in range(len(reports)) if label not in shown[number]]
            chosen = with_label[:MOST]
            made += [(n, Question(family, frozenset([label]))) for n in chosen + rng.sample(without, len(chosen))]
            continue
        for number in with_label[:MOST]:
            related = RELATIONS.is_a[label] | RELATIONS.is_a[:, label]
            others = [other for other in LABELS if other not in shown[number] and not related[other]]
            if len(others) >= 3:
                made.append((number, Question(family, options=frozenset([label, *rng.sample(others, 3)]))))
    for number in range(len(reports)) if family == "multiple" else ():
        gold = shown[number]
        if len(gold) >= 2:
            others = [label for label in LABELS if label not in gold]
            options = frozenset(gold + rng.sample(others, min(len(others), len(gold) + 1)))
            made.append((number, Question(family, options=options)))
    rng.shuffle(made)
    return made


def repeated(arrays, times: int):
    return type(arrays)(*(np.tile(array, (times,) + (1,) * (array.ndim - 1)) for array in arrays))


def selected(arrays, mask: np.ndarray):
    return type(arrays)(*(array[mask] for array in arrays))


def gains(texts: Sequence[Sequence[Finding]], reports: Findings, stakes: Stakes, worth: Worth) -> np.ndarray:
    """The gain of each text on each question, [texts, questions]."""
    count, number = len(reports.valid), len(texts)
    claims = pad_findings([text for text in texts for _ in range(count)], max(map(len, texts)))
    arguments = (repeated(arrays, number) for arrays in (reports, stakes, worth))
    return claim_values(CONFIG, RELATIONS, claims, *arguments).gain.reshape(number, count)


def best_blind_text(reports: Findings, stakes: Stakes, worth: Worth) -> list[Finding]:
    concepts = [int(concept) for concept in np.flatnonzero(RELATIONS.weight)]
    candidates = [Finding(c, 1, ASSERTED, side) for c in concepts for side in range(4)]
    candidates += [Finding(c, *kind) for c in concepts for kind in ((1, HEDGED), (0, ASSERTED))]
    text: list[Finding] = []
    best = 0.0
    for step in range(STEPS):
        longer = [[*text, candidate] for candidate in candidates]
        means = np.concatenate(
            [gains(longer[i : i + CHUNK], reports, stakes, worth).mean(1) for i in range(0, len(longer), CHUNK)]
        )
        if means.max() <= best + 1e-4:
            break
        best, text = means.max(), longer[int(means.argmax())]
        if step == 0:
            candidates = [candidates[i] for i in np.argsort(-means)[:KEPT]]
    return text


def aware_texts(asked: Sequence[Question], stakes: Stakes) -> dict[str, list[list[Finding]]]:
    """Texts that know the question, one each."""
    named = [sorted(question.asked | question.options) for question in asked]
    likeliest = [max(n, key=lambda c: prior[c]) for n, prior in zip(named, stakes.prior, strict=True)]
    deny = [[Finding(c, 0, ASSERTED) for c in n] for n in named]
    return {
        "likeliest claimed, rest denied": [
            [Finding(top, 1, ASSERTED), *(Finding(c, 0, ASSERTED) for c in n if c != top)]
            for n, top in zip(named, likeliest, strict=True)
        ],
        "all denied": deny,
        "all claimed": [[finding._replace(polarity=1) for finding in text] for text in deny],
    }


def described(text: Sequence[Finding]) -> str:
    sides = ("", " left", " right", " both")
    return ", ".join(
        f"{'' if f.polarity else 'no '}{'possible ' if f.certainty == HEDGED else ''}{LEXICON.concepts[f.concept].name}"
        f"{sides[f.side]}"
        for f in text
    )


def report(family: str, what: str, values: np.ndarray, note: str = "") -> None:
    margin = 1.96 * values.std() / max(len(values), 1) ** 0.5
    print(f"{family or 'no question':12s} {what:32s} {values.mean():+.4f} ± {margin:.4f}  {note}", flush=True)


def main(families: Sequence[str]) -> None:
    halves = read_halves()
    for family in families:
        made = [questions(half, family, seed) for half, seed in zip(halves, (1, 2), strict=True)]
        arrays = [[half[n] for n, _ in of_half] for half, of_half in zip(halves, made, strict=True)]
        reports = [pad_findings(findings, max(map(len, findings))) for findings in arrays]
        asked = [[question for _, question in of_half] for of_half in made]
        table = priors.count(CONFIG, LEXICON, RELATIONS, asked[0], reports[0])
        stakes = [table.stakes(LEXICON, RELATIONS, of_half, CONFIG.unasked) for of_half in asked]
        worth = [report_worth(CONFIG, RELATIONS, *pair) for pair in zip(reports, stakes, strict=True)]
        groups = {"best text": [np.ones(len(of_half), bool) for of_half in asked]}
        if family == "binary":
            groups = {
                LEXICON.concepts[label].name: [np.array([label in q.asked for q in of_half]) for of_half in asked]
                for label in LABELS
            }
        found = []
        for name, (train, test) in groups.items():
            if train.sum() < 20:
                continue
            text = best_blind_text(*(selected(half[0], train) for half in (reports, stakes, worth)))
            on_test = [selected(half[1], test) for half in (reports, stakes, worth)]
            found.append(gains([text], *on_test)[0] if text else np.zeros(int(test.sum())))
            report(family, name, found[-1], described(text))
        report(family, "best text, mean", np.concatenate(found))
        if family in ("single", "multiple"):
            for name, texts in aware_texts(asked[1], stakes[1]).items():
                claims = pad_findings(texts, max(map(len, texts)))
                report(family, name, claim_values(CONFIG, RELATIONS, claims, reports[1], stakes[1], worth[1]).gain)


if __name__ == "__main__":
    main(sys.argv[1:] or FAMILIES)
