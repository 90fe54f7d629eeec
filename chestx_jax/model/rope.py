"""Rotary position embeddings: M-RoPE of the decoder and the axial form of the vision tower."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def mrope_tables(
    positions_BxLx3: Int[Array, "B L 3"],
    head_width: int,
    theta: float,
    sections: tuple[int, int, int],
    interleaved: bool = False,
) -> tuple[Float[Array, "B L E"], Float[Array, "B L E"]]:
    """Cosine and sine, fp32, for every token: frequency j rotates by the temporal, height or width position according
    to its section (Qwen2-VL, arXiv 2409.12191, section 2.1). `interleaved`: the positions take turns, until height and
    width have had their sections' worth and the rest is temporal (Qwen3-VL, arXiv 2511.21631).

    Raises ValueError where the sections do not sum to half the head width.
    """
    if sum(sections) != head_width // 2:
        raise ValueError(f"mrope_section {sections} must sum to half the head width, {head_width // 2}")
    frequencies = theta ** (-np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width))
    stream = np.repeat(np.arange(3), sections)  # which of the three positions rotates frequency j
    if interleaved:
        turn, axis = np.divmod(np.arange(head_width // 2), 3)
        stream = np.where(turn < np.array(sections)[axis], axis, 0)
    angles = positions_BxLx3[..., stream].astype(jnp.float32) * frequencies.astype(np.float32)[None, None]
    return _cos_sin(angles)


def axial_tables(
    positions_BxPx2: Int[Array, "B P 2"], head_width: int, theta: float = 10000.0
) -> tuple[Float[Array, "B P E"], Float[Array, "B P E"]]:
    """Cosine and sine, fp32, for every patch: half of the frequencies rotate by its row, half by its column (2D RoPE of
    Qwen2-VL's vision tower)."""
    axis = head_width // 2
    frequencies = (theta ** (-np.arange(0, axis, 2, dtype=np.float32) / np.float32(axis))).astype(np.float32)
    stream = np.repeat(np.arange(2), frequencies.size)
    angles = positions_BxPx2[..., stream].astype(jnp.float32) * np.tile(frequencies, 2)[None, None]
    return _cos_sin(angles)


def rotate(x_BxLxHxE: Float[Array, "B L H E"], tables: tuple[Array, Array]) -> Float[Array, "B L H E"]:
    """Rotates the pairs (j, j + E/2) of every head in fp32; the result has the input's dtype."""
    cos, sin = (table[:, :, None, :] for table in tables)
    x = x_BxLxHxE.astype(jnp.float32)
    first, second = jnp.split(x, 2, axis=-1)
    return (x * cos + jnp.concatenate([-second, first], axis=-1) * sin).astype(x_BxLxHxE.dtype)


def _cos_sin(angles: Array) -> tuple[Array, Array]:
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)
