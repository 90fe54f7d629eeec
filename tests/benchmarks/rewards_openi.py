"""Per-label F1 of the reading against Open-i's coders: `python -m tests.benchmarks.rewards_openi [labels14-]even|odd`.

Reports are split by the parity of their uid: the lexicon was developed on even ones, odd ones are the held-out half.
A label counts as found if findings or impression assert one of its concepts, or name it beside an alternative
("atelectasis versus scar") or as probable: these are hedges in the lexicon, and coders code them (of the labels that
the even half only hedges: "versus" 26 of 39, "and/or" 8 of 13, "probable" 14 of 14, an "or" that nothing else in the
sentence hedges 47 of 53, all others 15 of 104). `labels14`:
the 14 labels of NIH ChestX-ray14, given for the same reports, instead of the coders'.
"""

import csv
import re
import sys
import tomllib
from pathlib import Path

import numpy as np

from chestx_jax.findings import Finding, read_reports
from chestx_jax.findings.sections import sentence_span
from chestx_jax.lexicon import load
from tests.helpers.paths import DATA

_CODED_HEDGES = re.compile(rb"\b(versus|vs|and/or|probabl[ey])\b", re.IGNORECASE)
_OTHER_HEDGES = re.compile(
    rb"\b(may|might|could|possib|perhaps|likely|suspect|suspic|question|concern|exclude|suggest|favor|differential)",
    re.IGNORECASE,
)
REPORTS, LABELS14 = (DATA / "openi" / name for name in ("indiana_reports.csv", "labels14.csv"))


def coded(row: dict[str, str]) -> set[str]:
    """Headings, and heading/qualifier pairs, of a report."""
    codes = set()
    for entry in (row["MeSH"] + ";" + row["Problems"]).split(";"):
        heading, *qualifiers = (part.strip().lower() for part in entry.split("/"))
        codes |= {heading, *(f"{heading}/{qualifier}" for qualifier in qualifiers)}
    return codes


def is_coded_hedge(text: bytes, finding: Finding) -> bool:
    """Whether a finding stands beside "versus", "and/or", "probable" or a plain "or": hedged for us, and coded."""
    first, last = max(finding.first - 30, 0), finding.last + 30
    sentence = text[slice(*sentence_span(text, finding.first, finding.last))]
    plain = re.search(rb"\bor\b", text[first:last], re.IGNORECASE) and not _OTHER_HEDGES.search(sentence)
    return bool(plain or _CODED_HEDGES.search(text, first, last))


def read(reports: list[dict[str, str]]) -> list[set[str]]:
    """The concepts that findings or impression of each report assert."""
    lexicon = load()
    texts = [report["findings"] + "\n\n" + report["impression"] for report in reports]
    return [
        {
            lexicon.concepts[f.concept].name
            for f in reading.findings
            if f.polarity and (f.certainty == 2 or (f.certainty == 1 and is_coded_hedge(text.encode(), f)))
        }
        for text, reading in zip(texts, read_reports(lexicon, texts), strict=True)
    ]


def table(labels: dict[str, list[str]], found: list[set[str]], gold: list[set[str]]) -> list[float]:
    """Prints each label's scores, given its concepts; returns the F1 of each and of all together."""
    total = np.zeros(3, int)
    scores = []
    for name, concepts in labels.items():
        is_found = np.asarray([not asserted.isdisjoint(concepts) for asserted in found])
        is_gold = np.asarray([name in names for names in gold])
        count = np.asarray([(is_found & is_gold).sum(), (is_found & ~is_gold).sum(), (~is_found & is_gold).sum()])
        total += count
        scores.append(f1(count))
        hit, extra, missed = count
        print(f"{name:28s} F1 {scores[-1]:.3f}  found {hit:4d}  extra {extra:4d}  missed {missed:4d}")
    return [*scores, f1(total)]


def f1(count: np.ndarray) -> float:
    hit, extra, missed = count
    return float(2 * hit / max(2 * hit + extra + missed, 1))


def main(part: str) -> None:
    tables = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    parity = part.removeprefix("labels14").lstrip("-") or ("all" if part == "labels14" else part)
    keep = {"even": (0,), "odd": (1,), "all": (0, 1)}[parity]
    with REPORTS.open(encoding="utf-8") as file:
        reports = [row for row in csv.DictReader(file) if int(row["uid"]) % 2 in keep]
    if part.startswith("labels14"):
        with LABELS14.open(encoding="utf-8") as file:
            rows = {row.pop("filename").removeprefix("CXR"): row for row in csv.DictReader(file)}
        reports = [report for report in reports if report["uid"] in rows]
        labels = tables["labels14"]
        gold = [{name for name, value in rows[report["uid"]].items() if value == "1"} for report in reports]
    else:
        labels = {label["name"]: label["concepts"] for label in tables["label"]}
        terms = {label["name"]: {term.lower() for term in label["terms"]} for label in tables["label"]}
        gold = [{name for name, of_label in terms.items() if of_label & coded(report)} for report in reports]
    *scores, micro = table(labels, read(reports), gold)
    macro = sum(scores) / len(scores)
    print(f"macro F1 over {len(scores)} labels, {len(reports)} {parity} reports: {macro:.4f}, micro F1 {micro:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["even"])
