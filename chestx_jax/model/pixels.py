"""Pixels to the values that a vision tower reads."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from chestx_jax.types import Images


def normalise(images: Images, frames: int) -> Float32[Array, "B I P F"]:
    """Patches less their channel's mean, over its standard deviation. A still film is each of `frames` frames; values
    run channel, frame, row, column. Equal to Qwen2VLImageProcessor's `pixel_values` up to rounding."""
    mean, std = (255 * np.array(scale, np.float32).reshape(1, 1, 1, 3, 1, 1) for scale in (images.mean, images.std))
    pixels = images.patches.reshape(*images.patches.shape[:-1], 3, 1, -1).astype(jnp.float32)
    values = (pixels - mean) * (1 / std)
    return jnp.repeat(values, frames, axis=-2).reshape(*images.patches.shape[:-1], -1)
