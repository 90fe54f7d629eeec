"""Films reach the device in a byte a pixel and are normalised there."""

from dataclasses import replace

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.config import to_dataclass
from chestx_jax.model.pixels import normalise
from chestx_jax.programs.shapes import batch_shapes, prompt_shapes
from chestx_jax.recipes import JobConfig, supervised_stages
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import RowsConfig, pack
from configs import sft
from tests.helpers.processor import pixel_values
from tests.helpers.tiny_models import example

share = st.floats(0.1, 0.9)
per_channel = st.tuples(share, share, share)


@settings(max_examples=20, deadline=None)
@given(mean=per_channel, std=per_channel, frames=st.sampled_from([1, 2, 3]))
def test_every_tone_becomes_what_the_processor_makes_of_it(mean, std, frames):
    spec = ImageSpec(patch_size=16, mean=mean, std=std, temporal_patch_size=frames)
    tones = np.random.default_rng(0).permuted(np.tile(np.arange(256, dtype=np.uint8), (4, 3, 1)), axis=-1)
    patches = tones.reshape(4, -1)
    film = example([(2, 2)], [3, 4], 0)
    film = replace(film, images=((patches, film.images[0][1]),))
    images = pack([[film]], RowsConfig(16, 1, 4), spec).images
    values = jax.jit(normalise, static_argnums=1)(images, frames)
    np.testing.assert_allclose(values[0, 0], pixel_values(patches, spec), rtol=3e-7, atol=1e-6)


def test_the_recipe_s_batches_hold_a_byte_a_pixel():
    """588 MiB of normalised frames in fp32 become 73.5 MiB of pixels."""
    job = to_dataclass(JobConfig, sft.PAPER)
    (stage,) = supervised_stages(job)
    patches = batch_shapes(job.image, stage.rows, stage.batch).images.patches
    assert patches.dtype == np.uint8
    assert patches.size * 2 * 4 == 588 * 2**20  # two frames, four bytes a value
    assert patches.size == 588 * 2**20 // 8
    assert prompt_shapes(job.image, RowsConfig(), 256).images.patches.dtype == np.uint8
