"""The reward compiles for a TPU slice and for NVIDIA cards, without a loop over tokens.

Needs libtpu (`pip install 'chestx-jax[tpu]'`) or jax's CUDA plugin (`'chestx-jax[gpu-plan]'`), no accelerator.
"""

import importlib.util

import pytest

from chestx_jax import lexicon
from tests.helpers.reward_texts import BYTES

MISSING = {
    "v5e:2x4": importlib.util.find_spec("libtpu") is None,
    "h100:8": not (importlib.util.find_spec("jax_plugins") and importlib.util.find_spec("jax_plugins.xla_cuda13")),
}


# A kept compilation cache holds the program of an earlier run, which cannot be loaded without the accelerator.
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache entry")
@pytest.mark.parametrize("machine", MISSING)
def test_the_reward_compiles_without_a_loop_over_tokens(machine):
    if MISSING[machine]:
        pytest.skip("no compiler for it: pip install 'chestx-jax[tpu]' or 'chestx-jax[gpu-plan]' brings it")
    from tests.benchmarks import rewards_compiled

    tables = lexicon.compile_tables(lexicon.load(), BYTES)
    program = rewards_compiled.compiled(machine, tables, 16, 64, "step", slots=8)
    memory = program.memory_analysis()
    size = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    assert 2**20 < size < 64 * 2**20  # the tables alone are some megabytes
    loops = [line for line in program.as_text().splitlines() if " while(" in line]
    assert len(loops) <= 3  # the fixpoints of three automata
    assert not any("known_trip_count" in loop for loop in loops)  # none has as many turns as there are tokens
