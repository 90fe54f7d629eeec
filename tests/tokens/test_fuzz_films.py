"""Two hundred mutated film files: read, or refused in a sentence; never a traceback or a film of one tone in silence.

`python -m tests.benchmarks.fuzz_films` tries two thousand."""

import pytest

from tests.helpers.film_fuzz import SILENT, UNCLEAR, FilmFuzz
from tests.helpers.fuzz import TRACEBACK, count_outcomes, table


@pytest.mark.filterwarnings("ignore")  # of pydicom and Pillow, about the files
def test_mutated_films(tmp_path):
    pytest.importorskip("pydicom", exc_type=ImportError)
    fuzz = FilmFuzz(tmp_path)
    outcomes = count_outcomes(fuzz.kinds, fuzz.attempt, 216)
    assert sum(outcomes.values()) == 216
    assert not [o for _, o in outcomes if o.startswith((TRACEBACK, SILENT, UNCLEAR))], table(outcomes)
    assert sum(count for (_, outcome), count in outcomes.items() if outcome.startswith("film")) >= 40
