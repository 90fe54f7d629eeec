"""M-RoPE positions: text counts up in all three axes, an image spreads over rows and columns (Qwen2-VL paper, 2.1)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32

from chestx_jax.errors import UserError


def mrope(
    ids_L: Int[np.ndarray, " L"], grids: Sequence[tuple[int, int]], image_pad: int, merge_size: int
) -> Int32[np.ndarray, "L 3"]:
    """Temporal, height and width position of every token of one unpadded sample.

    Each run of image pads is one image of `grids` (rows, columns of patches), merged `merge_size`² to one token; the
    text after it goes on from the longer side. Raises UserError where pads and grids disagree.
    """
    pads = np.asarray(ids_L) == image_pad
    expected = sum(rows * columns // merge_size**2 for rows, columns in grids)
    if pads.sum() != expected:
        raise UserError(f"The prompt has {pads.sum()} image placeholders, its {len(grids)} images fill {expected}.")
    positions = np.empty((len(pads), 3), np.int32)
    token = start = 0
    for grid in grids:
        rows, columns = grid[0] // merge_size, grid[1] // merge_size
        first = token + int(np.argmax(pads[token:]))
        positions[token:first] = np.arange(start, start + first - token)[:, None]
        start += first - token
        token = first + rows * columns
        if not pads[first:token].all():
            raise UserError(f"The placeholders of an image of {rows}×{columns} visual tokens are broken up by text.")
        row, column = np.indices((rows, columns)).reshape(2, -1)
        positions[first:token] = start + np.stack([np.zeros_like(row), row, column], axis=-1)
        start += max(rows, columns)
    positions[token:] = np.arange(start, start + len(pads) - token)[:, None]
    return positions
