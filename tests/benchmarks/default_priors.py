"""Counts of the Open-i reports that price texts without question: `python -m tests.benchmarks.default_priors [write]`.

Prints the concepts whose prior or price differs most from `chestx_jax/rewards/default_priors.json`; `write` writes that
file. Run it after a change of the lexicon or of the rules. Aggregate numbers alone: how often a report shows each
concept, and the price of claiming it falsely.
"""

import csv
import sys
from pathlib import Path

from chestx_jax import rewards
from chestx_jax.findings import pad_findings, read_reports
from chestx_jax.findings.targets import distinct, report_findings
from chestx_jax.lexicon import load, relations
from chestx_jax.rewards import priors
from chestx_jax.rewards.value import ValueConfig
from tests.helpers.paths import DATA

FILE = Path(rewards.__file__).with_name("default_priors.json")


def main(write: bool) -> None:
    lexicon = load()
    with (DATA / "openi/indiana_reports.csv").open(encoding="utf-8") as file:
        reports = [f"{row['findings']}\n\n{row['impression']}" for row in csv.DictReader(file)]
    findings = [distinct(report_findings([reading.findings])) for reading in read_reports(lexicon, reports)]
    asked = [priors.Question("")] * len(findings)
    table = priors.count(
        ValueConfig(), lexicon, relations(lexicon), asked, pad_findings(findings, max(map(len, findings)))
    )
    new, old = table.rows["", priors.NEITHER], priors.default(lexicon).default
    names = [concept.name for concept in lexicon.concepts]
    columns = (abs(new.prior - old.prior), names, old.prior, new.prior, old.price, new.price)
    ranked = sorted(zip(*columns, strict=True), reverse=True)
    for _, name, *values in ranked[:20]:
        print(f"{name:28} prior {values[0]:.4f} -> {values[1]:.4f}  price {values[2]:.3f} -> {values[3]:.3f}")
    if write:
        priors.save(FILE, priors.Priors({}, new), lexicon)
        print(f"{FILE}: {new.questions} reports")


if __name__ == "__main__":
    main(sys.argv[1:] == ["write"])
