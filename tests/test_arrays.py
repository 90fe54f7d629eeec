"""The annotations really are checked: a transposed array or a wrong dtype does not pass in silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, Int, TypeCheckError, jaxtyped

from chestx_jax.tokens.patches import patch_positions
from chestx_jax.tokens.positions import mrope
from tests.helpers.arrays import checked


@jaxtyped(typechecker=checked)
def scale(x_BxL: Float[Array, "B L"], y_L: Float[Array, " L"] | None = None) -> tuple[Float[Array, "B L"], int]:
    """Wrong on purpose for a square y."""
    return (x_BxL if y_L is None else x_BxL * y_L[None]), 3


def test_right_arrays_pass():
    scale(jnp.ones((2, 3)))
    scale(jnp.ones((2, 3)), jnp.ones(3))
    jax.jit(scale)(jnp.ones((2, 3)), jnp.ones(3))
    jax.eval_shape(scale, jax.ShapeDtypeStruct((2, 3), jnp.float32))


@pytest.mark.parametrize(
    "arguments",
    [
        (jnp.ones(3),),
        (jnp.ones((2, 3), jnp.int32),),
        (np.ones((2, 3), np.float32),),
        (jnp.ones((2, 3)), jnp.ones(2)),
        (jnp.ones((2, 3)), 1.0),
    ],
)
def test_wrong_arrays_fail(arguments):
    with pytest.raises(TypeCheckError):
        scale(*arguments)


def test_wrong_results_fail():
    @jaxtyped(typechecker=checked)
    def counts(x_BxL: Float[Array, "B L"]) -> tuple[Int[Array, " B"], Int[Array, " L"]]:
        return jnp.ones(x_BxL.shape[0], jnp.int32), jnp.ones(x_BxL.shape[0], jnp.int32)

    counts(jnp.ones((2, 2)))
    with pytest.raises(TypeCheckError):
        counts(jnp.ones((2, 3)))


def test_the_package_is_checked():
    assert patch_positions((2, 2), 2).shape == (4, 2)
    with pytest.raises(TypeCheckError):
        mrope(np.zeros((2, 2), np.int32), [], 1, 2)
