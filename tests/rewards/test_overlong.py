"""The length penalty of DAPO (arXiv 2503.14476, equation 13)."""

import jax.numpy as jnp
import numpy as np

from chestx_jax.rewards.overlong import OverlongConfig, length_penalty


def test_overlong_penalty_rises_over_the_buffer():
    lengths = jnp.asarray([1, 60, 80, 90, 100], jnp.int32)
    rule = OverlongConfig(rule="penalise", buffer=20, penalty=2.0)
    np.testing.assert_allclose(length_penalty(lengths, 100, rule), [0, 0, 0, 1, 2])
    np.testing.assert_array_equal(length_penalty(lengths, 100, OverlongConfig(rule="mask", buffer=20)), 0.0)


def test_the_penalty_works_at_its_default():
    """DAPO's shape, a fifth of the limit, whatever the limit."""
    lengths = jnp.asarray([80, 81, 90, 99, 100], jnp.int32)
    np.testing.assert_allclose(length_penalty(lengths, 100, OverlongConfig(rule="penalise")), [0, 0.05, 0.5, 0.95, 1])
    for limit in (1, 2, 7, 2048):
        ends = length_penalty(jnp.asarray([0, limit], jnp.int32), limit, OverlongConfig(rule="penalise"))
        np.testing.assert_allclose(ends, [0, 1])
