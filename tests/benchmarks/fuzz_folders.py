"""`python -m tests.benchmarks.fuzz_folders [N]`: what becomes of N mutated checkpoint folders (2,000). No traceback,
and each refusal is one sentence; exits with 1 where there is another."""

import sys
import tempfile
from pathlib import Path

from tests.helpers.folder_fuzz import UNCLEAR, FolderFuzz
from tests.helpers.fuzz import TRACEBACK, count_outcomes, table


def main(number: int = 2000) -> int:
    with tempfile.TemporaryDirectory() as folder:
        fuzz = FolderFuzz(Path(folder))
        outcomes = count_outcomes(fuzz.kinds, fuzz.attempt, number)
    print(table(outcomes))
    return int(any(outcome.startswith((TRACEBACK, UNCLEAR)) for _, outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
