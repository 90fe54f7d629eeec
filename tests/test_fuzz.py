"""A hundred mutated configurations and a hundred mutated folders: typed or read, or refused in a sentence.

`python -m tests.benchmarks.fuzz_configs` and `fuzz_folders` try two thousand of each."""

import pytest

from tests.helpers import config_fuzz, folder_fuzz
from tests.helpers.fuzz import TRACEBACK, count_outcomes, table


def total(outcomes, name):
    return sum(count for (_, outcome), count in outcomes.items() if outcome == name)


def test_mutated_configurations():
    outcomes = count_outcomes(config_fuzz.KINDS, config_fuzz.attempt, 100)
    assert not [o for _, o in outcomes if o.startswith((TRACEBACK, config_fuzz.UNCLEAR))], table(outcomes)
    assert total(outcomes, "typed") + total(outcomes, "refused") == 100
    assert total(outcomes, "typed") >= 5


@pytest.mark.filterwarnings("ignore")  # of transformers, about the files
def test_mutated_folders(tmp_path):
    fuzz = folder_fuzz.FolderFuzz(tmp_path)
    outcomes = count_outcomes(fuzz.kinds, fuzz.attempt, 100)
    assert not [o for _, o in outcomes if o.startswith((TRACEBACK, folder_fuzz.UNCLEAR))], table(outcomes)
    assert total(outcomes, "read") + total(outcomes, "refused") == 100
    assert total(outcomes, "read") >= 5
