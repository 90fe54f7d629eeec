"""Tiny models of every family and random multi-image rows, shared by the tests that compare with transformers."""

from dataclasses import replace

import numpy as np

from chestx_jax.model.config import ComputeConfig, ModelConfig, VisionConfig
from chestx_jax.tokens.patches import ImageSpec, patch_positions
from chestx_jax.tokens.positions import mrope
from chestx_jax.tokens.rows import Example

IMAGE_PAD, EOS, PAD, FIRST_TEXT, VOCABULARY = 5, 3, 1, 10, 300
TOKEN_IDS = {
    "bos_token_id": PAD,
    "eos_token_id": EOS,
    "vision_start_token_id": 6,
    "vision_end_token_id": 7,
    "image_token_id": IMAGE_PAD,
    "video_token_id": 8,
}
FP32 = ComputeConfig(dtype="float32", param_dtype="float32", remat="none", attention="xla")


def tiny(
    family="qwen2_vl", heads=4, kv_heads=2, tied=False, layers=2, head_width=16, width=0, deepstack=(0, 2), **compute
):
    """A model of a few ten thousand parameters; head_width 16 splits into M-RoPE sections 2, 3, 3."""
    vision = VisionConfig(layers=3, width=32, heads=2, hidden=64)
    if family == "qwen2_5_vl":
        vision = replace(vision, hidden=40, full_attention_layers=(1,))  # windows of 4 × 4 visual tokens
    if family == "qwen3_vl":
        vision = replace(vision, patch_size=16, table_side=5, deepstack_layers=deepstack)
    side = 3 * head_width // 16
    return ModelConfig(
        family=family,
        vocab_size=VOCABULARY,
        layers=layers,
        width=width or heads * head_width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_width if width else 0,
        hidden=96,
        mrope_section=(head_width // 2 - 2 * side, side, side),
        tied=tied,
        initializer_range=0.1,
        vision=vision,
        compute=replace(FP32, **compute),
    )


def image_spec(config):
    """How films are cut for a model."""
    return ImageSpec(patch_size=config.vision.patch_size)


def example(grids, lengths, seed, pixels=588):
    """Text of `lengths` tokens around images of `grids` with `pixels` numbers a patch; the last stretch is learned."""
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    for i, length in enumerate(lengths):
        ids += rng.integers(FIRST_TEXT, VOCABULARY, length).tolist()
        if i < len(grids):
            ids += [IMAGE_PAD] * (grids[i][0] * grids[i][1] // 4)
    array = np.array(ids, np.int32)
    pads = array == IMAGE_PAD
    weights = np.zeros(len(ids), np.float32)
    weights[-lengths[-1] :] = 1.0
    return Example(
        ids=array,
        positions=mrope(array, grids, IMAGE_PAD, 2),
        visual=np.where(pads, np.cumsum(pads, dtype=np.int32) - 1, -1).astype(np.int32),
        weights=weights,
        images=tuple(
            (rng.integers(0, 256, (rows * columns, pixels), np.uint8), patch_positions((rows, columns), 2))
            for rows, columns in grids
        ),
    )


def examples(pixels=588):
    """Rows of one, three and two images of different sizes, and one of text alone."""
    return [
        example([(4, 6)], [5, 9], 0, pixels),
        example([(4, 4), (10, 12), (2, 2)], [3, 2, 4, 12], 1, pixels),
        example([(6, 4), (12, 4)], [2, 3, 7], 2, pixels),
        example([], [17], 3),
    ]
