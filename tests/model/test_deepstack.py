"""DeepStack and the position table where rows are packed, prompts shared, layers looped over and meshes split."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, path_aware_map
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax import sharding
from chestx_jax.errors import UserError
from chestx_jax.model import lora, qwen_vl
from chestx_jax.model.config import TuningConfig, with_compute
from chestx_jax.model.position_table import interpolate
from chestx_jax.rollout.engine import next_position
from chestx_jax.sharding import MeshConfig, make_mesh
from tests.helpers import tiny_rows
from tests.helpers.tiny_models import tiny

CONFIG = tiny("qwen3_vl")
CONFIG = replace(CONFIG, layers=3, vision=replace(CONFIG.vision, patch_size=14))
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}

forward = jax.jit(qwen_vl.forward, static_argnums=0)


@pytest.fixture(scope="module")
def params():
    """Random, no norm at 1 and no bias at 0."""
    params = jax.jit(lambda: qwen_vl.init(CONFIG, jax.random.key(0)))()
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)


def alone(params, example):
    batch = tiny_rows.packed([[example]], len(example.ids))
    return np.asarray(forward(CONFIG, params, batch.tokens, batch.images))[0]


def test_packed_samples_are_as_if_alone(params):
    one, two, text, other = tiny_rows.prompt_examples()
    rows = [[one, text, other], [text, two], [two]]
    batch = tiny_rows.packed(rows, 48)
    hidden = np.asarray(forward(CONFIG, params, batch.tokens, batch.images))
    for row, examples in enumerate(rows):
        start = 0
        for example in examples:
            end = start + len(example.ids)
            np.testing.assert_allclose(hidden[row, start:end], alone(params, example), **TOLERANCE)
            start = end


def test_completions_after_a_shared_prompt_are_as_in_one_row(params):
    """The features are added while the prompt is computed; what follows reads them from the cache."""
    examples, group, length = tiny_rows.prompt_examples(), 3, 5
    prompts = tiny_rows.prompt_rows(examples)
    ids, _ = tiny_rows.completions(len(examples) * group, length)
    _, cache = jax.jit(qwen_vl.prefill, static_argnums=0)(CONFIG, params, prompts.tokens, prompts.images)
    at = np.repeat(np.asarray(next_position(prompts)), group)[:, None] + np.arange(length, dtype=np.int32)
    hidden, _ = jax.jit(qwen_vl.extend, static_argnums=0)(CONFIG, params, ids, at, np.ones_like(ids), (cache,))
    rows = [[tiny_rows.with_completion(examples[b // group], row)] for b, row in enumerate(ids)]
    batch = tiny_rows.packed(rows, tiny_rows.LONG + length)
    whole = np.asarray(forward(CONFIG, params, batch.tokens, batch.images))
    for b in range(len(ids)):
        start = len(examples[b // group].ids)
        np.testing.assert_allclose(hidden[b], whole[b, start : start + length], **TOLERANCE)


def test_each_feature_goes_to_its_decoder_layer(params):
    """Without the last feature the keys of the layers up to it stay; those after it, and the output, move."""
    prompts = tiny_rows.prompt_rows(tiny_rows.prompt_examples())
    prefill = jax.jit(qwen_vl.prefill, static_argnums=0)
    hidden, cache = prefill(CONFIG, params, prompts.tokens, prompts.images)
    silent = jax.tree.map(lambda x: x, params)
    for half in ("kernel", "bias"):
        leaf = silent["vision"]["merger_deepstack"]["down"]
        leaf[half] = leaf[half].at[-1].set(0.0)
    without, shorter = prefill(CONFIG, silent, prompts.tokens, prompts.images)
    moved = np.abs(np.asarray(cache.k - shorter.k)).max((1, 2, 3, 4))
    assert (moved[:2] == 0).all()  # two features: after layers 0 and 1
    assert moved[2] > 1e-3
    film = prompts.images.valid.any((1, 2))
    difference = np.abs(np.asarray(hidden - without)).max((1, 2))
    assert (difference[film] > 1e-3).all()
    assert (difference[~film] == 0).all()


def loss_and_gradients(config, params, batch):
    def loss(params):
        hidden = qwen_vl.forward(config, params, batch.tokens, batch.images)
        return jnp.mean(jnp.square(hidden), where=jnp.asarray(batch.tokens.segments != 0)[..., None])

    return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize("compute", [{"remat": "layer"}, {"remat": "dots"}, {"unroll": 0}, {"mesh": True}])
def test_the_way_of_computing_changes_rounding_alone(params, compute):
    """Layers recomputed or unrolled, and a mesh of 2 × 2 × 2: loss and every gradient stay."""
    one, two, text, other = tiny_rows.prompt_examples()
    batch = tiny_rows.packed([[one, text], [two], [other], [other, one]] * 2, 48)
    value, gradients = jax.jit(loss_and_gradients, static_argnums=0)(CONFIG, params, batch)
    if compute.pop("mesh", False):
        mesh = make_mesh(MeshConfig(2, 2, 2))
        shardings = qwen_vl.shardings(CONFIG, mesh)
        with sharding.use_mesh(mesh):
            run = jax.jit(loss_and_gradients, static_argnums=0, out_shardings=(None, shardings))
            placed = jax.device_put(batch, sharding.batch_shardings(mesh, batch))
            again, others = run(CONFIG, jax.device_put(params, shardings), placed)
    else:
        config = with_compute(CONFIG, **compute)
        again, others = jax.jit(loss_and_gradients, static_argnums=0)(config, params, batch)
    np.testing.assert_allclose(again, value, rtol=1e-5)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(others), strict=True):
        error = np.linalg.norm(np.asarray(a - b))
        assert error <= 1e-4 * np.linalg.norm(a) + 1e-6, jax.tree_util.keystr(path)


def test_adapters_of_every_layer_merge(params):
    """Those of the stacked mergers too."""
    tuning = TuningConfig(vision="lora", merger="lora", decoder="lora", rank=2, targets=(".*",))
    config = replace(CONFIG, tuning=tuning)
    shapes = qwen_vl.shapes(config)
    adapted = lora.add_adapters(config, params, shapes, jax.random.key(1))
    adapted = path_aware_map(lambda path, x: x + 0.1 if path[-1] == "lora_b" else x, adapted)
    assert ("vision", "merger_deepstack", "up", "lora_a") in flatten_dict(adapted)
    batch = tiny_rows.packed([tiny_rows.prompt_examples()[:1]], 48)
    merged = forward(CONFIG, lora.merge_adapters(config, adapted), batch.tokens, batch.images)
    hidden = forward(config, adapted, batch.tokens, batch.images)
    np.testing.assert_allclose(hidden, merged, rtol=1e-4, atol=1e-4)
    assert np.abs(hidden - forward(CONFIG, params, batch.tokens, batch.images)).max() > 0.1


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 7), st.integers(0, 4))
def test_the_position_table_is_stretched_over_the_grid(rows, columns, side, padding):
    """Against interpolation along one axis and then the other."""
    table = np.random.default_rng(rows * 10 + columns).normal(size=(side, side, 3)).astype(np.float32)
    at = lambda count: np.linspace(0, side - 1, count)  # noqa: E731
    along = np.stack([[np.interp(at(columns), np.arange(side), row[:, i]) for i in range(3)] for row in table])
    wanted = np.stack(
        [[np.interp(at(rows), np.arange(side), along[:, i, c]) for i in range(3)] for c in range(columns)]
    )
    grid = np.stack(np.indices((rows, columns)), -1).reshape(-1, 2)
    positions = np.concatenate([grid, np.full((padding, 2), 30)]).astype(np.int32)[None]
    valid = np.arange(len(positions[0]))[None] < len(grid)
    got = np.asarray(interpolate(jnp.asarray(table.reshape(-1, 3)), jnp.asarray(positions), jnp.asarray(valid)))
    expected = np.transpose(wanted, (2, 0, 1)).reshape(-1, 3)
    np.testing.assert_allclose(got[0, : len(grid)], expected, atol=1e-5)


@pytest.mark.parametrize("layers", [(8, 16, 24), (1, 0), (0, 0), (-1,), (0, 1, 2)])
def test_layers_that_deepstack_cannot_take_are_named(layers):
    with pytest.raises(UserError, match=r"deepstack_layers is .* 0 to 2"):
        replace(CONFIG, layers=2, vision=replace(CONFIG.vision, deepstack_layers=layers))
    replace(CONFIG, family="qwen2_vl", vision=replace(CONFIG.vision, deepstack_layers=layers))  # not read
