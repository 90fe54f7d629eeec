"""The array namespace of the rules in jit, and automata over the first axis.

On CPUs these are loops over the steps, ten times faster there than trees. On accelerators, where each turn of a loop
costs a launch, they are trees of logarithmic depth, or fixpoints with as many turns as the longest chain of states.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt

from chestx_jax.findings.arrays import ArrayOps
from chestx_jax.findings.rules.nearest import before, up_to_here

_Tree = TypeVar("_Tree")


def combine_so_far(
    combine: Callable[[Array, Array], Array], values: Array, tree: Callable | None = None, reverse: bool = False
) -> Array:
    """An associative combination of the values up to each step (from each on, if `reverse`).

    `tree` is the operation of `jax.lax` that does the same, where there is one: fewer kernels than a general tree.
    """

    def loop(values: Array) -> Array:
        def turn(total: Array, value: Array) -> tuple[Array, Array]:
            total = combine(total, value)
            return total, total

        edge = slice(-1, None) if reverse else slice(0, 1)
        rest = values[:-1] if reverse else values[1:]
        out = jax.lax.scan(turn, values[edge][0], rest, reverse=reverse)[1]
        return jnp.concatenate([out, values[edge]] if reverse else [values[edge], out])

    def of_accelerators(values: Array) -> Array:
        if tree is None:
            return jax.lax.associative_scan(combine, values, reverse=reverse)
        return tree(values, axis=0, reverse=reverse)

    return jax.lax.platform_dependent(values, cpu=loop, default=of_accelerators)


JAX = ArrayOps(
    xp=jnp,
    max_so_far=lambda values: combine_so_far(jnp.maximum, values, jax.lax.cummax),
    min_from_here=lambda values: combine_so_far(jnp.minimum, values, jax.lax.cummin, reverse=True),
    sum_so_far=lambda values: combine_so_far(jnp.add, values, jax.lax.cumsum),
)


def materialise(values: _Tree, count: Array) -> _Tree:
    """The same integers and booleans, written to memory once; `count` is one of them that is nowhere below 0.

    XLA for CPUs drops optimization barriers before it fuses, and then computes a value again for each of its uses,
    which takes three times as long as reading the text. A loop is not fused; this one takes a single turn, which the
    compiler cannot know.
    """

    def once(count: Array, values: _Tree) -> _Tree:
        def turn(state: tuple[Array, _Tree]) -> tuple[Array, _Tree]:
            turns, values = state
            return turns + 1, jax.tree.map(lambda leaf: leaf | (turns > 1).astype(leaf.dtype), values)

        last = (count.reshape(-1)[:1].min() >= 0).astype(jnp.int32)
        return jax.lax.while_loop(lambda state: state[0] < last, turn, (jnp.int32(0), values))[1]

    return jax.lax.platform_dependent(count, values, cpu=once, default=lambda count, values: values)


def states_before(
    step: Callable[..., Array], symbols: tuple[Int[Array, "T B"], ...], active: Bool[Array, "T B"], start: int | Array
) -> Int[Array, "T B"]:
    """The state of an automaton before each step: `step(state, *symbols)` of the last active step before it.

    As a fixpoint, all steps take the state of the last active one before until nothing changes: exact, and fast where
    a few symbols decide a state.
    """

    def loop(active: Array, *symbols: Array) -> Array:
        def turn(state: Array, symbols: tuple[Array, ...]) -> tuple[Array, Array]:
            active, *others = symbols
            return jnp.where(active, step(state, *others), state), state

        return jax.lax.scan(turn, jnp.full(active.shape[1:], start, jnp.int32), (active, *symbols))[1]

    def fixpoint(active: Array, *symbols: Array) -> Array:
        previous = before(JAX, up_to_here(JAX, cue=active).cue).step

        def take(after: Array) -> Array:
            return jnp.where(previous < 0, start, jnp.take_along_axis(after, jnp.maximum(previous, 0), 0))

        def turn(states: tuple[Array, Array]) -> tuple[Array, Array]:
            _, state = states
            return state, take(step(state, *symbols))

        first = jnp.full(active.shape, start, jnp.int32)
        return jax.lax.while_loop(lambda states: (states[0] != states[1]).any(), turn, (first - 1, first))[1]

    return jax.lax.platform_dependent(active, *symbols, cpu=loop, default=fixpoint)


def compose_maps(one: UInt[Array, "..."], two: UInt[Array, "..."]) -> UInt[Array, "..."]:
    """The map `one` and then `two`. A map of eight states is eight times four bits: a state, and a bit that stays 1
    only as long as it is 1 on the way."""
    result = jnp.zeros_like(one)
    for state in range(8):
        middle = (one >> np.uint32(4 * state)) & 15
        last = (two >> ((middle & 7) * 4)) & 15
        result = result | ((last & (middle | 7)) << np.uint32(4 * state))
    return result
