"""Parameters plus their updates, rounded at random where the parameters are bfloat16.

A bfloat16 number has 8 significant bits: an update of less than 1/512 of a weight is lost when the sum is rounded to
the nearest, and at the recipe's rates nearly all updates are that small. Rounded up with the probability of the
remainder (stochastic rounding; Gupta et al. 2015, arXiv 1502.02551), the sum is right on average over steps.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, BFloat16, Float, UInt32


def apply_updates(params, updates, key: Array):
    """params + updates in fp32, stored in each parameter's dtype. The random bits depend on `key` and the parameter's
    place in the tree alone, not on the mesh. An update of 0 leaves every bit as it is."""
    numbers = iter(range(len(jax.tree.leaves(params))))

    def add(param, update):
        total, number = param.astype(jnp.float32) + update, next(numbers)
        if param.dtype != jnp.bfloat16:
            return total.astype(param.dtype)
        return round_randomly(total, jax.random.bits(jax.random.fold_in(key, number), total.shape, jnp.uint32))

    return jax.tree.map(add, params, updates)


def round_randomly(x: Float[Array, "..."], bits: UInt32[Array, "..."]) -> BFloat16[Array, "..."]:
    """fp32 numbers as one of the two bfloat16 next to each: the one further from 0 with a probability of the distance
    to the other over that between them. `bits` are uniform; only 16 of them are used."""
    low = jnp.uint32(0xFFFF)  # the part of a float32 that a bfloat16 lacks
    whole = jax.lax.bitcast_convert_type(x, jnp.uint32) + (bits & low)
    return jax.lax.bitcast_convert_type(whole & ~low, jnp.float32).astype(jnp.bfloat16)
