"""`python -m tests.benchmarks.fuzz_films [N]`: what becomes of N mutated film files (2,000). No traceback, and no film
of one tone in silence; exits with 1 where there is either."""

import logging
import sys
import tempfile
import warnings
from pathlib import Path

from tests.helpers.film_fuzz import SILENT, UNCLEAR, FilmFuzz
from tests.helpers.fuzz import TRACEBACK, count_outcomes, table


def main(number: int = 2000) -> int:
    warnings.simplefilter("ignore")  # of pydicom and Pillow, about the files
    logging.getLogger("chestx_jax").propagate = False
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        fuzz = FilmFuzz(Path(folder))
        outcomes = count_outcomes(fuzz.kinds, fuzz.attempt, number)
    print(table(outcomes))
    return int(any(outcome.startswith((TRACEBACK, SILENT, UNCLEAR)) for _, outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
