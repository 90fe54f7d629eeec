"""What transformers' Qwen2-VL processor makes of patches, in numpy and bit for bit."""

import numpy as np
from jaxtyping import Float32, UInt8

from chestx_jax.tokens.patches import ImageSpec


def pixel_values(patches_PxZ: UInt8[np.ndarray, "P Z"], spec: ImageSpec) -> Float32[np.ndarray, "P F"]:
    """The processor's `pixel_values` of patches: normalised, in its steps of rounding (a float64 product, float32
    rest), and repeated as frames."""
    unit = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    normalised = ((unit[:, None] - mean) / std).T
    values = np.take_along_axis(normalised[None], patches_PxZ.reshape(len(patches_PxZ), 3, -1).astype(int), axis=-1)
    return np.repeat(values[:, :, None], spec.temporal_patch_size, axis=2).reshape(len(patches_PxZ), -1)
