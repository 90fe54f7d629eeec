"""The array namespace that the rules run in: numpy on the host, `jax.numpy` in jit (see `jit_arrays`)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = Any  # of numpy or of jax


class ArrayOps(NamedTuple):
    """An array namespace, and the running operations over the first axis, which the two of them name differently."""

    xp: Any
    max_so_far: Callable[[Array], Array]
    min_from_here: Callable[[Array], Array]
    sum_so_far: Callable[[Array], Array]


NUMPY = ArrayOps(
    xp=np,
    max_so_far=np.maximum.accumulate,
    min_from_here=lambda values: np.minimum.accumulate(values[::-1])[::-1],
    sum_so_far=lambda values: np.cumsum(values, 0, dtype=np.int32),
)


def first_at_least(ops: ArrayOps, rising: Array, threshold: Array) -> Array:
    """The first step at which rising values [T, B] reach each threshold [M, B]; the last step if none does."""
    steps = rising.shape[0]
    first = ops.xp.zeros(threshold.shape, np.int32)
    for bit in reversed(range(steps.bit_length())):
        ahead = first + (1 << bit)
        below = ops.xp.take_along_axis(rising, ops.xp.minimum(ahead, steps) - 1, 0) < threshold
        first = ops.xp.where((ahead <= steps) & below, ahead, first)
    return ops.xp.minimum(first, steps - 1)
