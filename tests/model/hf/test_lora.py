"""Adapters: what is trained and what is frozen, merging, and export in peft's form."""

import json
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from chestx_jax import checkpoint
from chestx_jax.config import to_dict
from chestx_jax.errors import UserError
from chestx_jax.model import hf, lora
from chestx_jax.model.config import TuningConfig
from chestx_jax.model.qwen_vl import forward, init, logits, shapes
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.rows import RowsConfig, pack
from chestx_jax.update.optimizer import OptimizerConfig, make_optimizer
from chestx_jax.update.state import initial_state, state_shapes, state_shardings
from chestx_jax.update.steps import sft_step
from tests.helpers.tiny_models import TOKEN_IDS, VOCABULARY, examples, tiny

TUNING = TuningConfig(vision="freeze", merger="train", decoder="lora", rank=4, targets=("q", "v", "up"))
ADAPTED = {"attention/q", "attention/v", "mlp/up"}


@pytest.fixture(scope="module")
def batch():
    return jax.tree.map(jnp.asarray, pack([[row] for row in examples()], RowsConfig(160, 3, 120), ImageSpec()))


@pytest.fixture(scope="module")
def trained(batch):
    """Parameters before and after two steps, and the configuration."""
    config = replace(tiny(), tuning=TUNING)
    params = jax.jit(partial(init, config))(jax.random.key(0))
    transform = optax.masked(
        make_optimizer(OptimizerConfig(rate=1e-2, warmup=0.0, weight_decay=0.1), 10),
        partial(lora.trainable_mask, config),
    )
    step = jax.jit(lambda state: sft_step(config, transform, 0.0, 1, state, batch, jnp.ones(VOCABULARY, bool)))
    state, losses = initial_state(params, transform), []
    for _ in range(2):
        state, metrics = step(state)
        losses.append(float(metrics["loss"]))
    assert losses[1] < losses[0]
    return config, params, state.params


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"targets": ("query",)}, "decoder"),
        ({"vision": "lora"}, "vision"),  # its queries, keys and values are one kernel
        ({"merger": "lora"}, "merger"),
        ({"vision": "lora", "targets": ("q", "proj")}, None),
        ({"merger": "lora", "targets": ("merger_.*", "v")}, None),
    ],
)
def test_a_part_whose_adapters_have_no_place_is_refused(changes, part):
    """It would not learn, without a word."""
    config = replace(tiny(), tuning=replace(TUNING, **{"targets": ("q", "v"), **changes}))
    if part is None:
        lora.check_targets(config, shapes(config))
    else:
        with pytest.raises(UserError, match=rf"tuning\.{part} is lora and targets .* names no linear layer"):
            lora.check_targets(config, shapes(config))


def test_only_trainable_weights_change(trained):
    config, before, after = (trained[0], *map(flatten_dict, trained[1:]))
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {path for path in before if lora.is_trainable(config, path)}
    assert {"/".join(path[2:-1]) for path in changed if path[0] == "decoder"} == ADAPTED
    assert {path[1].split("_")[0] for path in changed if path[0] == "vision"} == {"merger"}


def test_frozen_weights_have_no_moments():
    config = replace(tiny(), tuning=TUNING)
    transform = optax.masked(make_optimizer(OptimizerConfig(), 10), partial(lora.trainable_mask, config))
    shapes = state_shapes(config, transform)
    sizes = sum(leaf.size for leaf in jax.tree.leaves(shapes.moments))
    trainable = sum(leaf.size for path, leaf in flatten_dict(shapes.params).items() if lora.is_trainable(config, path))
    assert 2 * trainable <= sizes <= 2 * trainable + 10
    mesh = make_mesh(MeshConfig(2, 2, 2))
    assert jax.tree.structure(state_shardings(config, transform, mesh)) == jax.tree.structure(shapes)


def test_merged_weights_compute_the_same(trained, batch):
    config, _, after = trained
    plain, merged = lora.without_adapters(config), lora.merge_adapters(config, after)
    run = lambda config: jax.jit(lambda p: logits(config, p, forward(config, p, batch.tokens, batch.images)))  # noqa: E731
    np.testing.assert_allclose(run(config)(after), run(plain)(merged), atol=2e-4)
    untouched = {path: leaf for path, leaf in flatten_dict(after).items() if not path[-1].startswith("lora_")}
    different = [path for path, leaf in flatten_dict(merged).items() if not np.array_equal(leaf, untouched[path])]
    assert {"/".join(path[2:-1]) for path in different} == ADAPTED


def test_fresh_adapters_change_nothing_and_dropout_needs_a_key(trained, batch):
    config, _, after = trained
    plain = lora.without_adapters(config)
    base = lora.merge_adapters(config, after)
    adapted = lora.add_adapters(config, base, jax.eval_shape(lambda: after), jax.random.key(3))
    run = jax.jit(lambda p, key: forward(config, p, batch.tokens, batch.images, key))
    expected = jax.jit(lambda p: forward(plain, p, batch.tokens, batch.images))(base)
    np.testing.assert_array_equal(run(adapted, None), expected)
    np.testing.assert_array_equal(run(after, None), run(after, None))
    assert np.abs(run(after, jax.random.key(0)) - run(after, jax.random.key(1))).max() > 1e-3


def test_a_base_checkpoint_gets_adapters_and_export_merges_them(trained, tmp_path):
    config, _, after = trained
    hf.save(tmp_path / "merged", config, after, TOKEN_IDS, {})
    plain = hf.read_config(tmp_path / "merged", config.compute)
    assert plain == lora.without_adapters(config)
    loaded = hf.load(tmp_path / "merged", plain)
    for path, leaf in flatten_dict(lora.merge_adapters(config, after)).items():
        np.testing.assert_array_equal(leaf, flatten_dict(loaded)[path])
    again = hf.load(tmp_path / "merged", config, make_mesh(MeshConfig(1, 4, 2)))
    assert jax.tree.structure(again) == jax.tree.structure(after)
    assert hf.differing(tmp_path / "merged", config, again) == []


def test_an_orbax_checkpoint_without_adapters_gets_fresh_ones(trained, tmp_path):
    config, _, after = trained
    mesh, plain = make_mesh(MeshConfig(1, 2, 4)), lora.without_adapters(config)
    checkpoint.save_params(tmp_path / "bare", lora.merge_adapters(config, after), to_dict(plain))
    loaded = flatten_dict(checkpoint.load_params(tmp_path / "bare", config, mesh))
    assert sorted(loaded) == sorted(flatten_dict(after))
    assert all(not leaf.any() for path, leaf in loaded.items() if path[-1] == "lora_b")
    checkpoint.save_params(tmp_path / "whole", after, to_dict(config))
    for path, leaf in flatten_dict(checkpoint.load_params(tmp_path / "whole", config, mesh)).items():
        np.testing.assert_array_equal(leaf, flatten_dict(after)[path])


def test_adapters_have_the_form_of_peft(trained, tmp_path):
    from safetensors.numpy import load_file

    config, _, after = trained
    with pytest.raises(UserError, match="export the whole model"):
        hf.save_adapter(tmp_path, config, after, "base")
    config = replace(config, tuning=replace(TUNING, merger="freeze"))
    hf.save_adapter(tmp_path, config, after, "base")
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["peft_type"]) == (4, 32.0, "LORA")
    assert "model.language_model.layers.1.self_attn.q_proj" in settings["target_modules"]
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 2 * len(settings["target_modules"]) == 2 * 3 * config.layers
    prefix = "base_model.model.model.language_model.layers.1.mlp.up_proj"
    a, b = (tensors[f"{prefix}.lora_{half}.weight"] for half in "AB")
    flat = flatten_dict(after)
    kernel = ("decoder", "layers", "mlp", "up", "kernel")
    merged = flatten_dict(lora.merge_adapters(config, after))[kernel][1]
    np.testing.assert_allclose(flat[kernel][1] + 8.0 * (b @ a).T, merged, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # its own, of transformers
def test_peft_loads_the_adapter(trained, tmp_path, batch):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    peft = pytest.importorskip("peft", exc_type=ImportError)
    from transformers import Qwen2VLForConditionalGeneration

    from tests.model.hf.test_parity import torch_inputs

    config, _, after = trained
    config = replace(config, tuning=replace(TUNING, merger="freeze"))
    base = {path: leaf for path, leaf in flatten_dict(after).items() if not path[-1].startswith("lora_")}
    from flax.traverse_util import unflatten_dict

    hf.save(tmp_path / "base", lora.without_adapters(config), unflatten_dict(base), TOKEN_IDS, {})
    hf.save_adapter(tmp_path / "adapter", config, after, str(tmp_path / "base"))
    model = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path / "base", dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    with torch.no_grad():
        theirs = model(**torch_inputs(examples())).logits.numpy()
    ours = jax.jit(lambda p: logits(config, p, forward(config, p, batch.tokens, batch.images)))(after)
    for i, row in enumerate(examples()):
        np.testing.assert_allclose(ours[i, : len(row.ids)], theirs[i, : len(row.ids)], atol=2e-4, rtol=1e-4)
