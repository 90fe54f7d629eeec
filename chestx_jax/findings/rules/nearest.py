"""The nearest cue before or after each step, by running maxima.

A cue is an array [T, B] that is not 0 at the steps where it stands (a mask, or a value below 512); or a `Nearest`,
where what is known at one step stands at another. A cue reaches a mention if it is nearer than every stop.
"""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from chestx_jax.findings.arrays import Array, ArrayOps

_BITS = 9  # of a cue's value, below its step number


class Nearest(NamedTuple):
    """Step and value of the nearest cue. Where there is none the value is 0 and the step is -1 (up to here) or T."""

    step: Array
    value: Array


def up_to_here(ops: ArrayOps, **cues: Array | Nearest) -> Any:
    """The nearest of each cue at or before each step, under its name."""
    return _unpack(cues, ops.max_so_far(_keys(ops, cues, -1 << _BITS)))


def after(ops: ArrayOps, **cues: Array) -> Any:
    """The nearest of each cue after each step, under its name."""
    none = next(iter(cues.values())).shape[0] << _BITS
    keys = ops.min_from_here(_keys(ops, cues, none))
    return _unpack(cues, ops.xp.concatenate([keys[1:], ops.xp.full_like(keys[:1], none)]))


def before(ops: ArrayOps, nearest: Nearest) -> Nearest:
    """The nearest cue before each step, of the nearest up to each."""
    shifted = [
        ops.xp.concatenate([ops.xp.full_like(values[:1], none), values[:-1]])
        for values, none in zip(nearest, (-1, 0), strict=True)
    ]
    return Nearest(*shifted)


def of_two(ops: ArrayOps, cue: Array, other: Nearest) -> Nearest:
    """A cue that stands at the steps of one, and where that is not, at those of another."""
    steps = ops.xp.arange(cue.shape[0], dtype=np.int32)[:, None]
    return Nearest(ops.xp.where(cue, steps, other.step), cue | other.value)


def _keys(ops: ArrayOps, cues: dict[str, Array | Nearest], none: int) -> Array:
    """Keys [T, K, B] of K cues: step and value where the value is not 0, `none` elsewhere."""
    first = next(iter(cues.values()))
    steps = (first.step if isinstance(first, Nearest) else first).shape[0]
    here = ops.xp.arange(steps, dtype=np.int32)[:, None]

    def key(cue: Array | Nearest) -> Array:
        step, value = cue if isinstance(cue, Nearest) else (here, cue)
        value = value.astype(np.int32)
        return ops.xp.where(value > 0, step << _BITS | value, none)

    return ops.xp.stack([key(cue) for cue in cues.values()], 1)


def _unpack(cues: dict[str, Array | Nearest], keys: Array) -> SimpleNamespace:
    steps, values = keys >> _BITS, keys & ((1 << _BITS) - 1)
    return SimpleNamespace(**{name: Nearest(steps[:, k], values[:, k]) for k, name in enumerate(cues)})
