"""The process value against radiologists: `python -m tests.benchmarks.rewards_radpref`.

RadPref (of CRIMSON, arXiv 2603.06183): 50 reports with two candidate reports each, rated 1 to 5 by three radiologists.
Prints Kendall's τ and Spearman's ρ with the mean rating, with 95 % intervals by bootstrap over reports, and on how many
of the pairs with unequal mean ratings the better candidate scores higher; the same for three baselines and for one
radiologist against the mean of the others; and what each ingredient of the value gives. These pairs were used to choose
the value's constants.
"""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from chestx_jax.findings import pad_findings, read_reports
from chestx_jax.findings.targets import distinct, no_stakes, report_findings
from chestx_jax.lexicon import load, relations
from chestx_jax.rewards import value
from chestx_jax.rewards.value import ValueConfig
from tests.benchmarks.rewards_judge import rouge_l, spearman
from tests.helpers.paths import DATA

FILE = DATA / "radpref/pairs.jsonl"
CANDIDATES = ("C1", "C2")
DEFAULT = ValueConfig()


def kendall(one: np.ndarray, other: np.ndarray) -> float:
    """Kendall's τ-b."""
    signs = [np.sign(values[:, None] - values[None]) for values in (np.asarray(one), np.asarray(other))]
    both = (signs[0] * signs[1]).sum()
    return float(both / np.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum()))


def agreement(scores: np.ndarray, ratings: np.ndarray) -> tuple[int, int]:
    """Pairs whose better candidate scores higher, of those whose ratings differ."""
    by_pair = [values.reshape(-1, 2) @ np.array([1.0, -1.0]) for values in (scores, ratings)]
    differ = by_pair[1] != 0
    return int((by_pair[0] * by_pair[1] > 0)[differ].sum()), int(differ.sum())


def interval(measure: Callable, scores: np.ndarray, ratings: np.ndarray) -> tuple[float, float]:
    rng, pairs = np.random.default_rng(0), len(scores) // 2
    drawn = [rng.integers(pairs, size=pairs) for _ in range(1000)]
    samples = [np.concatenate([[2 * d, 2 * d + 1] for d in of_draw]) for of_draw in drawn]
    low, high = np.percentile([measure(scores[i], ratings[i]) for i in samples], (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    lexicon = load()
    tables = relations(lexicon)
    pairs = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    reports = [pair["ground_truth_report"] for pair in pairs for _ in CANDIDATES]
    candidates = [pair[f"{name}_report"] for pair in pairs for name in CANDIDATES]
    by_rater = np.array([[rater[name]["rating"] for rater in pair["raters"]] for pair in pairs for name in CANDIDATES])
    ratings = by_rater.mean(1)
    said, shown = ([reading.findings for reading in read_reports(lexicon, texts)] for texts in (candidates, reports))
    claims = pad_findings(said, max(map(len, said)))
    report = pad_findings([distinct(report_findings([findings])) for findings in shown], 64)
    stakes = no_stakes(len(lexicon.concepts), len(reports))

    def process(config: ValueConfig = DEFAULT, tables=tables) -> np.ndarray:
        worth = value.report_worth(config, tables, report, stakes)
        return value.claim_values(config, tables, claims, report, stakes, worth).process

    def concepts(findings, present: bool) -> set[int]:
        return {f.concept for f in findings if f.certainty and (f.polarity or not present)}

    def f1(one: set[int], other: set[int]) -> float:
        return 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0

    def concept_f1(present: bool) -> np.ndarray:
        return np.array([f1(concepts(s, present), concepts(r, present)) for s, r in zip(said, shown, strict=True)])

    identity = np.eye(len(lexicon.concepts), dtype=np.float32)
    flat = np.where(tables.weight > 0, np.float32(0.7), np.float32(0))
    rows = {
        "process value": process(),
        "ROUGE-L": np.array([f_measure(*rouge_l(c, r)) for c, r in zip(candidates, reports, strict=True)]),
        "bag of concepts F1": np.array(
            [f1(concepts(s, False), concepts(r, False)) for s, r in zip(said, shown, strict=True)]
        ),
        "present concepts F1": np.array(
            [f1(concepts(s, True), concepts(r, True)) for s, r in zip(said, shown, strict=True)]
        ),
        "one radiologist, the others' mean": None,
        "without synonyms and signs": process(tables=tables._replace(credit=identity)),
        "without clinical weights": process(tables=tables._replace(weight=flat)),
        "without hedging": process(replace(DEFAULT, hedge=1.0)),
        "without repeats": process(replace(DEFAULT, repeat=0.0)),
        "tau 0.1": process(replace(DEFAULT, tau=0.1)),
        "tau 0.4": process(replace(DEFAULT, tau=0.4)),
        "floor 0.1": process(replace(DEFAULT, floor=0.1)),
        "floor 0.4": process(replace(DEFAULT, floor=0.4)),
    }
    for name, scores in rows.items():
        if scores is None:
            others = [(by_rater[:, i], np.delete(by_rater, i, 1).mean(1)) for i in range(by_rater.shape[1])]
            tau, rho = (np.mean([measure(*pair) for pair in others]) for measure in (kendall, spearman))
            print(f"{name:34s} τ {tau:.3f}                  ρ {rho:.3f}")
            continue
        (low, high), (agree, of) = interval(kendall, scores, ratings), agreement(scores, ratings)
        print(
            f"{name:34s} τ {kendall(scores, ratings):.3f} [{low:.2f}, {high:.2f}]  ρ {spearman(scores, ratings):.3f}"
            f"  better candidate {agree} of {of}"
        )


def f_measure(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


if __name__ == "__main__":
    main()
