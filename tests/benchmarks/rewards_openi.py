"""Per-label F1 of the extractor against the Open-i coders: `python -m tests.benchmarks.rewards_openi even|odd`.

Reports are split by the parity of their uid: the lexicon was developed on even ones, odd ones are the held-out half.
A label counts as found if findings or impression assert one of its concepts.
"""

import csv
import re
import sys
import tomllib
from pathlib import Path

from chestx_jax.findings import Finding, read_reports
from chestx_jax.lexicon import load
from tests.helpers.paths import DATA

_ALTERNATIVES = re.compile(rb"\b(versus|vs|and/or)\b", re.IGNORECASE)
REPORTS = DATA / "openi/indiana_reports.csv"


def coded(row: dict[str, str]) -> set[str]:
    """Headings, and heading/qualifier pairs, of a report."""
    codes = set()
    for entry in (row["MeSH"] + ";" + row["Problems"]).split(";"):
        heading, *qualifiers = (part.strip().lower() for part in entry.split("/"))
        codes |= {heading, *(f"{heading}/{qualifier}" for qualifier in qualifiers)}
    return codes


def is_alternative(text: bytes, finding: Finding) -> bool:
    """Whether a finding stands beside "versus" or "and/or": hedged for us, and coded with its alternative."""
    return bool(_ALTERNATIVES.search(text, max(finding.first - 30, 0), finding.last + 30))


def main(parity: str, data: Path = REPORTS) -> None:
    lexicon = load()
    names = [concept.name for concept in lexicon.concepts]
    labels = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["label"]
    keep = {"even": (0,), "odd": (1,), "all": (0, 1)}[parity]
    with data.open(encoding="utf-8") as file:
        reports = [row for row in csv.DictReader(file) if int(row["uid"]) % 2 in keep]
    counts = {label["name"]: [0, 0, 0] for label in labels}
    for report in reports:
        gold = coded(report)
        text = report["findings"] + "\n\n" + report["impression"]
        asserted = {
            names[f.concept]
            for f in read_reports(lexicon, [text])[0].findings
            if f.polarity and (f.certainty == 2 or (f.certainty == 1 and is_alternative(text.encode(), f)))
        }
        for label in labels:
            is_gold = any(term.lower() in gold for term in label["terms"])
            is_found = any(name in asserted for name in label["concepts"])
            count = counts[label["name"]]
            count[0] += is_gold and is_found
            count[1] += is_found and not is_gold
            count[2] += is_gold and not is_found
    scores = []
    for name, (hit, extra, missed) in counts.items():
        scores.append(2 * hit / max(2 * hit + extra + missed, 1))
        print(f"{name:28s} F1 {scores[-1]:.3f}  found {hit:4d}  extra {extra:4d}  missed {missed:4d}")
    print(f"macro F1 over {len(scores)} labels, {len(reports)} {parity} reports: {sum(scores) / len(scores):.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["even"])
