"""`tests/benchmarks/accelerator.py`, rehearsed where there is no accelerator."""

import jax
import pytest

from chestx_jax.planning.cost import chips
from tests.benchmarks import accelerator


def test_the_table_of_one_accelerator(capsys):
    """Each line has the tokens that its program computes, and the shares that the chip's figures give."""
    timed = {row.what: row for row in accelerator.ours(accelerator.TINY, chips.H200, rounds=1)}
    assert list(timed) == [*accelerator.NAMES, "reward"]
    tokens = {
        "SFT step": 2 * 64,
        "prefill": 2 * 32,
        "decode, a token": 4,
        "reference": 2 * 32 + 4 * 16,
        "reward": 8 * 64,
    }
    assert {what: timed[what].tokens for what in tokens} == tokens
    assert timed["update"].tokens == timed["reference"].tokens
    for what, row in timed.items():
        assert row.seconds > 0
        assert (row.peak_share > 0) == (what not in ("decode, a token", "reward"))
        assert (row.bandwidth_share > 0) == (what == "decode, a token")
        assert (row.memory > 0) == (what != "reward")
    assert timed["SFT step"].row()[2] == f"{128 / timed['SFT step'].seconds:,.0f}"


def test_donated_arguments_go_from_run_to_run():
    """The state of a step and the ring of decoding: a second run on what the first has consumed would raise."""
    from chestx_jax.programs.job import programs
    from chestx_jax.sharding import make_mesh

    program = programs(accelerator.TINY.job, make_mesh(accelerator.TINY.job.mesh, jax.devices()[:1]))["grpo/decode"]
    run = accelerator.runner(program, program.lower().compile())
    first = run()
    assert jax.tree.structure(first) == jax.tree.structure(run())
    with pytest.raises(RuntimeError, match="deleted"):
        jax.block_until_ready(first[0].k[0] + 0)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers' own of what it will rename
def test_transformers_in_torch_beside_it():
    pytest.importorskip("torch")
    timed = {row.what: row for row in accelerator.theirs(accelerator.TINY, "cpu", rounds=1)}
    assert timed["transformers: SFT step"].tokens == 2 * 64
    assert timed["transformers: decode, a token"].tokens == 4
