"""The reward compiles for a TPU slice, without a loop over tokens.

Needs libtpu (`pip install 'chestx-jax[tpu]'`), no TPU.
"""

import importlib.util

import pytest

from chestx_jax import lexicon
from tests.helpers.reward_texts import BYTES

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no libtpu: pip install 'chestx-jax[tpu]' brings it"
)


# A kept compilation cache holds the program of an earlier run, which cannot be loaded without a TPU.
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache entry")
def test_the_reward_compiles_for_a_slice_and_fits():
    from tests.benchmarks import rewards_tpu

    tables = lexicon.compile_tables(lexicon.load(), BYTES)
    program = rewards_tpu.compiled("v5e:2x4", tables, 16, 64, "step", slots=8)
    memory = program.memory_analysis()
    size = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    assert 2**20 < size < 64 * 2**20  # the tables alone are some megabytes
    loops = [line for line in program.as_text().splitlines() if " while(" in line]
    assert len(loops) <= 3  # the fixpoints of three automata
    assert not any("known_trip_count" in loop for loop in loops)  # none has as many turns as there are tokens
