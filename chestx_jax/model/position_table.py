"""Learned positions of patches: a square table, resampled bilinearly to each image's grid (Qwen3-VL's vision tower)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def interpolate(
    table_XxA: Float[Array, "X A"], positions_BxPx2: Int[Array, "B P 2"], valid_BxP: Bool[Array, "B P"]
) -> Float[Array, "B P A"]:
    """The embedding of every patch, in the table's dtype. The X = side² entries are spread over the image so that its
    corner patches take those in the table's corners; `positions_BxPx2` are rows and columns in the image's grid."""
    side = round(table_XxA.shape[0] ** 0.5)
    last_Bx1x2 = jnp.max(jnp.where(valid_BxP[..., None], positions_BxPx2, 0), axis=1, keepdims=True)
    scale = jnp.float32(side - 1) / jnp.maximum(last_Bx1x2, 1).astype(jnp.float32)
    at_BxPx2 = positions_BxPx2.astype(jnp.float32) * scale
    low = jnp.clip(jnp.floor(at_BxPx2).astype(jnp.int32), 0, side - 1)
    high = jnp.minimum(low + 1, side - 1)
    share = at_BxPx2 - low.astype(jnp.float32)  # of the higher entry

    def corner(rows: Array, columns: Array, weight: Array) -> Array:
        return table_XxA[rows * side + columns] * weight[..., None].astype(table_XxA.dtype)

    (row, column), (next_row, next_column) = (jnp.moveaxis(x, -1, 0) for x in (low, high))
    down, right = share[..., 0], share[..., 1]
    return (
        corner(row, column, (1 - down) * (1 - right))
        + corner(row, next_column, (1 - down) * right)
        + corner(next_row, column, down * (1 - right))
        + corner(next_row, next_column, down * right)
    )
