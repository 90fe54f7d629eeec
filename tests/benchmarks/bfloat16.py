"""How much of the change that fp32 weights undergo bfloat16 weights reach: python -m tests.benchmarks.bfloat16"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from chestx_jax.update.optimizer import OptimizerConfig, make_optimizer
from chestx_jax.update.rounding import apply_updates


def share_reached(rate: float, steps: int, size: int = 1 << 14) -> tuple[float, float]:
    """The component of the bfloat16 weights' change along that of fp32 weights, over its length: summed to the nearest
    number, and rounded at random. Weights of a scale of 0.02 as in the models, AdamW at a constant rate, gradients
    with a constant part and as much noise."""
    transform = make_optimizer(OptimizerConfig(rate=rate, schedule="constant", warmup=0.0), steps)
    start = jax.random.normal(jax.random.key(0), (size,)) * jnp.float32(0.02)
    start = start.astype(jnp.bfloat16)
    drift = jax.random.normal(jax.random.key(1), (size,))

    def step(carry, number):
        exact, nearest, randomly, moments = carry
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(2), number), (size,))
        updates, moments = transform.update({"kernel": drift + noise}, moments, {"kernel": exact})
        update = updates["kernel"]
        nearest = (nearest.astype(jnp.float32) + update).astype(jnp.bfloat16)
        randomly = apply_updates(randomly, update, jax.random.fold_in(jax.random.key(3), number))
        return (optax.apply_updates(exact, update), nearest, randomly, moments), None

    exact = start.astype(jnp.float32)
    carry = (exact, start, start, transform.init({"kernel": exact}))
    (wanted, *reached, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(steps)))(carry)
    change = lambda x: np.asarray(x, np.float64) - np.asarray(start, np.float64)  # noqa: E731
    nearest, randomly = (float(change(x) @ change(wanted) / (change(wanted) @ change(wanted))) for x in reached)
    return nearest, randomly


if __name__ == "__main__":
    print("| rate | steps | to the nearest | at random |\n|---|---|---|---|")
    for rate in (2e-6, 5e-7):
        for steps in (150, 1500):
            nearest, randomly = share_reached(rate, steps)
            print(f"| {rate:g} | {steps} | {nearest:.1%} | {randomly:.1%} |")
