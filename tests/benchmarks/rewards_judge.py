"""The extractor against the release's LLM judge on Open-i reasoning: `python -m tests.benchmarks.rewards_judge [-v]`.

Prints the share of judged observations whose concept the lexicon covers, the agreement of signs (of the observation
read with its status, and of the same concept in the reasoning itself), and the item-level rank correlation of
factuality and completeness with the judge's, beside two baselines: ROUGE-L and a bag of concepts without polarity.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from chestx_jax.eval.answers.parsing import reasoning_text
from chestx_jax.findings import extract, extract_batch, pad_findings
from chestx_jax.lexicon import load
from chestx_jax.lexicon.tables import relations
from chestx_jax.rewards import process, verify
from tests.helpers.paths import DATA

FOLDER = DATA / "radrbench_outputs/reasoning_res"
NEGATIVE = re.compile(
    r"\b(no|not|none|non|nor|absent|absence|without|normal|negative|clear|unremarkable|unlikely|ruled out|excluded|exclud\w*|"  # noqa: E501
    r"within normal|intact|sharp|midline|free|resolved|lack|never|inconsistent|unsupported|less likely|preserved|denied|"  # noqa: E501
    r"appropriate|regular|well[- ]defined|unsupport\w*|minimal likelihood|maintained|low likelihood|cannot be confirmed)\b",  # noqa: E501
    re.IGNORECASE,
)
STATUS_POSITIVE = re.compile(
    r"\b(not (?:excluded|ruled out|normal|clear)|cannot be (?:excluded|ruled out)|abnormal)\b", re.IGNORECASE
)
REFUTED = re.compile(
    r"\b(not|absent|unlikely|ruled out|excluded|negative|unconfirmed|unsupported|less likely|refuted)\b", re.IGNORECASE
)
HEALTHY = re.compile(
    r"\b(normal|clear|sharp|intact|midline|central\w*|symmetric\w*|unremarkable|adequate\w*|within normal|proper\w*|good)\b",  # noqa: E501
    re.IGNORECASE,
)
UNHEALTHY = re.compile(r"\b(abnormal|asymmetr|not|no longer)\w*", re.IGNORECASE)


def load_items(folder: Path) -> list[tuple[str, dict]]:
    return [
        (path.parent.name + "/" + path.stem, record)
        for path in sorted(folder.glob("*/*.json"))
        for record in json.loads(path.read_text(encoding="utf-8"))
    ]


def observations(record: dict, field: str) -> list[tuple[str, str]]:
    listed = record.get(field)
    if not isinstance(listed, dict):
        return []
    entries = listed.get("key_conclusion") or listed.get("key_conclusions") or []
    return [
        (str(entry.get("observation", "")), str(entry.get("status", "")))
        for entry in entries
        if isinstance(entry, dict)
    ]


def judged(record: dict) -> dict[str, float] | None:
    """The judge's factuality, completeness and effectiveness (None where it gave none), or None where a reply is
    malformed."""
    observed, gold = observations(record, "pred_key_finding"), observations(record, "gt_key_finding")
    try:
        right = float(record["precision_res"]["correct_count"])
        recalled = float(record["recall_res"]["recalled_count"])
    except (KeyError, TypeError, ValueError):
        return None
    if not observed or not gold:
        return None
    return {
        "factuality": min(right / len(observed), 1.0),
        "completeness": min(recalled / len(gold), 1.0),
        "effectiveness": judged_effectiveness(record),
    }


def judged_effectiveness(record: dict) -> float:
    """Share of the steps that the judge calls effective; NaN where it listed none."""
    try:
        counts = [float(record["efficiency"][f"{name}_count"]) for name in ("effective", "ineffective")]
    except (KeyError, TypeError, ValueError):
        return float("nan")
    return counts[0] / sum(counts) if sum(counts) > 0 else float("nan")


def judge_sign(observation: str, status: str) -> int:
    """Whether the judge lists a present (1) or an absent (0) finding, by rules independent of the lexicon.

    The status decides. An observation that is itself a denial or a normality ("no effusion", "clear lungs") is an
    absence unless the status refutes it; so is one whose status names what is normal or missing ("bones: no fractures
    or abnormal densities").
    """
    negative = bool(NEGATIVE.search(status)) and not STATUS_POSITIVE.search(status)
    if re.match(r"\s*(?:no|none|without|absence of)\b", status, re.IGNORECASE):
        negative = True
    denial = re.match(r"(?:no|absence of|lack of|without|absent)\b", observation.strip(), re.IGNORECASE)
    healthy = HEALTHY.search(observation) and not UNHEALTHY.search(observation)
    if denial or healthy:
        return int(
            bool(healthy) and bool(REFUTED.search(status)) and not re.search(r"\bnormal\b", status, re.IGNORECASE)
        )
    return int(not negative)


def ranks(values: np.ndarray) -> np.ndarray:
    order = values.argsort(kind="stable")
    out = np.empty(len(values))
    out[order] = np.arange(len(values))
    for value in np.unique(values):
        out[values == value] = out[values == value].mean()
    return out


def spearman(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.corrcoef(ranks(np.asarray(one)), ranks(np.asarray(two)))[0, 1])


def rouge_l(one: str, two: str) -> tuple[float, float]:
    """Precision and recall of the longest common subsequence of words."""
    a, b = (re.findall(r"[a-z0-9]+", text.lower()) for text in (one, two))
    if not a or not b:
        return 0.0, 0.0
    row = [0] * (len(b) + 1)
    for word in a:
        last = 0
        for j, other in enumerate(b, 1):
            last, row[j] = row[j], last + 1 if word == other else max(row[j], row[j - 1])
    return row[-1] / len(a), row[-1] / len(b)


def main(verbose: bool) -> None:
    lexicon = load()
    names = [concept.name for concept in lexicon.concepts]
    tables = relations(lexicon)
    items = load_items(FOLDER)
    total = covered = agree = signed = text_agree = text_signed = 0
    uncovered, disagreements = Counter(), Counter()
    for _, record in items:
        text = reasoning_text(str(record["pred"]))
        in_text = [f for f in extract(lexicon, text) if f.certainty]
        for observation, status in observations(record, "pred_key_finding"):
            total += 1
            concepts = [f for f in extract(lexicon, observation) if tables.counted[f.concept]]
            with_status = [f for f in extract(lexicon, f"{observation}: {status}") if tables.counted[f.concept]]
            if not concepts and not with_status:
                uncovered[observation.lower()] += 1
                continue
            covered += 1
            sign = judge_sign(observation, status)
            in_observation = with_status or concepts
            signed += 1
            asserted = [f for f in in_observation if f.certainty] or in_observation  # headings assert nothing
            same = (asserted[0].polarity == sign) != (names[asserted[0].concept] == "No Finding")
            agree += same
            if not same:
                first = in_observation[0]
                disagreements[f"{observation} | {status} | {names[first.concept]} {first.polarity}"] += 1
            signs = [
                f.polarity != (names[f.concept] == "No Finding")
                for f in in_text
                if any(tables.is_a[f.concept, c.concept] or tables.is_a[c.concept, f.concept] for c in in_observation)
            ]
            if signs:
                text_signed += 1
                text_agree += sign in signs
    print(f"observations {total}, covered {covered / total:.4f}")
    print(
        f"sign of observation with status {agree / signed:.4f}; sign in the reasoning {text_agree / text_signed:.4f} of {text_signed}"  # noqa: E501
    )
    if verbose:
        print("uncovered:", uncovered.most_common(60))
        print("\n".join(f"{n} {c}" for c, n in disagreements.most_common(60)))
    correlate(lexicon, items)


def correlate(lexicon, items) -> None:
    items_with_verdict = [(name, record, verdict) for name, record in items if (verdict := judged(record)) is not None]
    texts = [reasoning_text(str(record["pred"])) for _, record, _ in items_with_verdict]
    steps = [record["reason_steps"] for _, record, _ in items_with_verdict]
    steps = [
        " ".join(s) if isinstance(s, list) else str(s.get("reason_steps") if isinstance(s, dict) else s) for s in steps
    ]
    reports = [str(record.get("original_report", "")) for _, record, _ in items_with_verdict]
    slots = 96
    claims, evidence, targets = (extract_batch(lexicon, list(values), slots) for values in (texts, reports, steps))
    tables = relations(lexicon)
    verdicts = verify.verify(tables, claims, evidence)
    factual = np.asarray(process.precision(tables, claims, evidence, verdicts))
    plain = np.asarray(process.factuality(verdicts))
    complete = np.asarray(process.recall(tables, claims, targets))
    stated = np.asarray(process.completeness(tables, claims, targets))
    rouge_p = [rouge_l(text, report)[0] for text, report in zip(texts, reports, strict=True)]
    rouge_r = [rouge_l(text, step)[1] for text, step in zip(texts, steps, strict=True)]
    bag_p, bag_r = [], []
    for i in range(len(items_with_verdict)):
        one, two, three = (set(f.concept[i][f.valid[i]]) for f in (claims, evidence, targets))
        bag_p.append(len(one & two) / max(len(one), 1))
        bag_r.append(len(one & three) / max(len(three), 1))
    effective = np.asarray(process.efficiency(tables, claims, targets))
    claimed = np.asarray(process.effectiveness(tables, claims, targets))
    names = ("factuality", "completeness", "effectiveness")
    judge = {name: np.asarray([verdict[name] for _, _, verdict in items_with_verdict]) for name in names}
    print(f"items {len(items_with_verdict)}")
    for name, ours, rouge, bag in (("factuality", factual, rouge_p, bag_p), ("completeness", complete, rouge_r, bag_r)):
        print(
            f"{name:13s} Spearman ours {spearman(ours, judge[name]):.4f}  ROUGE-L {spearman(np.asarray(rouge), judge[name]):.4f}"  # noqa: E501
            f"  bag of concepts {spearman(np.asarray(bag), judge[name]):.4f}"
        )
    counted = ~np.isnan(judge["effectiveness"])
    print(f"effectiveness Spearman ours {spearman(effective[counted], judge['effectiveness'][counted]):.4f}")
    print(
        f"the training terms: factuality of distinct claims {spearman(plain, judge['factuality']):.4f}, "
        f"completeness by statements alone {spearman(stated, judge['completeness']):.4f}, "
        f"effectiveness of claims alone {spearman(claimed[counted], judge['effectiveness'][counted]):.4f}"
    )
    observed = [
        [
            f._replace(step=number)
            for number, (o, s) in enumerate(observations(record, "pred_key_finding"))
            for f in extract(lexicon, f"{o}: {s}")
        ]
        for _, record, _ in items_with_verdict
    ]
    listed = pad_findings(observed, slots)
    verdicts = verify.verify(tables, listed, evidence)
    print(
        "the judge's own observations, verified by the same rules: factuality Spearman "
        f"{spearman(process.precision(tables, listed, evidence, verdicts), judge['factuality']):.4f}"
    )
    # A model's RadRScore over the items with a text (the judge also scores thirty that have none).
    ours = {"factuality": factual, "completeness": complete, "effectiveness": effective}
    for group in sorted({name for name, _, _ in items_with_verdict}):
        in_group = np.asarray(
            [name == group and bool(text.strip()) for (name, _, _), text in zip(items_with_verdict, texts, strict=True)]
        )
        print(f"{group:55s} n {in_group.sum():4d}  ", end="")
        for who, terms in (("ours", ours), ("judge", judge)):
            means = [float(np.nanmean(terms[name][in_group])) for name in names]
            print(f"{who} {' '.join(f'{mean:.3f}' for mean in means)} RadRScore {np.mean(means):.3f}  ", end="")
        print()


if __name__ == "__main__":
    main("-v" in sys.argv)
