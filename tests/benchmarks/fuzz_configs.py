"""`python -m tests.benchmarks.fuzz_configs [N]`: what becomes of N mutated configurations (2,000). No traceback,
and each refusal is one sentence; exits with 1 where there is another."""

import sys

from tests.helpers.config_fuzz import KINDS, UNCLEAR, attempt
from tests.helpers.fuzz import TRACEBACK, count_outcomes, table


def main(number: int = 2000) -> int:
    outcomes = count_outcomes(KINDS, attempt, number)
    print(table(outcomes))
    return int(any(outcome.startswith((TRACEBACK, UNCLEAR)) for _, outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
