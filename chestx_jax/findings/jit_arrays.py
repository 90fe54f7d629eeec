"""The array namespace of the rules in jit.

Running operations are loops on CPUs, ten times faster there than trees, and trees of logarithmic depth on accelerators,
where each turn of a loop costs a launch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from chestx_jax.findings.arrays import ArrayOps


def _running(combine: Callable[[Array, Array], Array], tree: Callable, start: int, reverse: bool) -> Callable:
    def loop(values: Array) -> Array:
        first = jnp.full(values.shape[1:], start, jnp.int32)
        return jax.lax.scan(lambda best, value: (combine(best, value),) * 2, first, values, reverse=reverse)[1]

    def running(values: Int[Array, "T ..."]) -> Int[Array, "T ..."]:
        return jax.lax.platform_dependent(
            values, cpu=loop, default=lambda values: tree(values, axis=0, reverse=reverse)
        )

    return running


_LIMITS = jnp.iinfo(jnp.int32)
JAX = ArrayOps(
    xp=jnp,
    max_so_far=_running(jnp.maximum, jax.lax.cummax, _LIMITS.min, False),
    min_from_here=_running(jnp.minimum, jax.lax.cummin, _LIMITS.max, True),
    sum_so_far=_running(jnp.add, jax.lax.cumsum, 0, False),
)
