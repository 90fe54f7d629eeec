"""Prompts, completions and packed batches for the tiny models."""

import jax
import numpy as np

from chestx_jax.model import qwen_vl
from chestx_jax.rollout.sampling import Vocabulary
from chestx_jax.tokens import rows
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import Example, RowsConfig
from chestx_jax.types import Batch, Prompts, Tokens
from tests.helpers import tiny_models
from tests.helpers.tiny_models import EOS, FIRST_TEXT, IMAGE_PAD, PAD, VOCABULARY

CONFIG = tiny_models.tiny()  # fp32, nothing recomputed; layers in a loop, which compiles faster than unrolled
KNOWN = VOCABULARY - 20  # ids from here on are the vocabulary's padding rows
SLOTS, PATCHES = 2, 24  # image slots of a row, patches of a slot
LONG = 32  # tokens of a prompt row


def parameters(seed: int = 0):
    return jax.jit(lambda: qwen_vl.init(CONFIG, jax.random.key(seed)))()


def vocabulary() -> Vocabulary:
    """The ids that tiny models may sample: no image pads, no padding rows; two stop ids."""
    allowed = np.arange(VOCABULARY) < KNOWN
    allowed[IMAGE_PAD] = False
    return Vocabulary(allowed=allowed, stop_ids=np.array([EOS, PAD], np.int32))


def prompt_examples() -> list[Example]:
    """Four prompts of unequal length: one film, two films, text alone, one film of another shape."""
    plans = [([(4, 4)], [5, 7]), ([(4, 6), (2, 2)], [3, 4, 9]), ([], [11]), ([(2, 4)], [2, 6])]
    return [tiny_models.example(grids, lengths, seed=40 + i) for i, (grids, lengths) in enumerate(plans)]


def prompt_rows(examples, length: int = LONG) -> Prompts:
    return rows.prompts(examples, RowsConfig(length, SLOTS, PATCHES), range(len(examples)), ImageSpec())


def packed(plan, length: int) -> Batch:
    return rows.pack(plan, RowsConfig(length, SLOTS, PATCHES), ImageSpec())


def shift_right(tokens: Tokens, by: int) -> Tokens:
    """Rows moved right by `by` positions: padding on the right moves to the left."""
    return jax.tree.map(lambda x: np.roll(x, by, axis=1), tokens)


def completions(count: int, length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random completion ids [count, length] and their lengths, the last one full."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, length + 1, count).astype(np.int32)
    lengths[-1] = length
    return rng.integers(FIRST_TEXT, KNOWN, (count, length)).astype(np.int32), lengths


def with_completion(example: Example, ids) -> Example:
    """The prompt followed by a completion, as one sample whose loss is on the completion."""
    ids = np.asarray(ids, np.int32)
    after = example.positions.max() + 1 + np.arange(len(ids), dtype=np.int32)
    return Example(
        ids=np.concatenate([example.ids, ids]),
        positions=np.concatenate([example.positions, np.repeat(after[:, None], 3, axis=1)]),
        visual=np.concatenate([example.visual, np.full(len(ids), -1, np.int32)]),
        weights=np.concatenate([np.zeros(len(example.ids), np.float32), np.ones(len(ids), np.float32)]),
        images=example.images,
    )
