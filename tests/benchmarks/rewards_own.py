"""Open-i reports as their own reasoning: `python -m tests.benchmarks.rewards_own`.

Each report is scored against itself. Printed are the shares of the reports with a process value of at least 0.95 and
0.9 and the mean; with a number as argument, so many of the worst of the even half as well.
"""

import csv
import sys

import numpy as np

from chestx_jax.lexicon import load
from chestx_jax.rewards.texts import Item, score_texts
from tests.helpers.paths import DATA


def main(shown: int) -> None:
    with (DATA / "openi/indiana_reports.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["findings"] + row["impression"]).strip()]
    texts = [f"{row['findings']}\n\n{row['impression']}" for row in rows]
    values = np.asarray([score.process for score in score_texts(load(), [Item(text, (text,)) for text in texts])])
    even = [index for index, row in enumerate(rows) if int(row["uid"]) % 2 == 0]
    for index in sorted(even, key=lambda index: values[index])[:shown]:
        print(f"{values[index]:.3f}  {texts[index]}\n")
    shares = ", ".join(f"{(values >= floor).mean():.4f} at least {floor}" for floor in (0.95, 0.9))
    print(f"{len(rows)} reports as their own reasoning: {shares}, mean {values.mean():.4f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
