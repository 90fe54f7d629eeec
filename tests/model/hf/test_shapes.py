"""Full-size models, without a byte of weights: counts, names and shapes against transformers and a real index."""

import json
import math
from dataclasses import replace

import jax
import pytest

from chestx_jax.model.config import ModelConfig, VisionConfig
from chestx_jax.model.hf.config import from_hf, to_hf
from chestx_jax.model.hf.names import canonical, in_memory, weights
from chestx_jax.model.qwen_vl import shapes

WINDOWED = VisionConfig(hidden=3420)  # of Qwen2.5-VL
TOWER = VisionConfig(layers=27, width=1152, heads=16, hidden=4304, patch_size=16)  # of Qwen3-VL
SMALL_TOWER = replace(TOWER, layers=24, width=1024, hidden=4096, deepstack_layers=(5, 11, 17))


def qwen3_vl(tower, **sizes):
    return ModelConfig(
        "qwen3_vl", 151936, kv_heads=8, rope_theta=5e6, mrope_section=(24, 20, 20), max_positions=262144, vision=tower,
        **sizes,
    )  # fmt: skip


MODELS = {
    "qwen2-vl-2b": ModelConfig(
        vocab_size=151936, layers=28, width=1536, heads=12, kv_heads=2, hidden=8960, tied=True, vision=VisionConfig()
    ),
    "qwen2-vl-7b": ModelConfig(),
    "qwen2-vl-72b": ModelConfig(layers=80, width=8192, heads=64, kv_heads=8, hidden=29568),
    "qwen2.5-vl-3b": ModelConfig(
        "qwen2_5_vl", 151936, layers=36, width=2048, heads=16, kv_heads=2, hidden=11008, tied=True,
        max_positions=128000, vision=WINDOWED,
    ),
    "qwen2.5-vl-7b": ModelConfig("qwen2_5_vl", max_positions=128000, vision=WINDOWED),
    "qwen3-vl-2b": qwen3_vl(SMALL_TOWER, layers=28, width=2048, heads=16, hidden=6144, tied=True),
    "qwen3-vl-4b": qwen3_vl(SMALL_TOWER, layers=36, width=2560, heads=32, head_dim=128, hidden=9728, tied=True),
    "qwen3-vl-8b": qwen3_vl(TOWER, layers=36, width=4096, heads=32, hidden=12288),
    "qwen3-vl-32b": qwen3_vl(TOWER, layers=64, width=5120, heads=64, head_dim=128, hidden=25600),
}  # fmt: skip
BILLIONS = {
    "qwen2-vl-2b": 2.21,
    "qwen2-vl-7b": 8.29,
    "qwen2-vl-72b": 73.41,
    "qwen2.5-vl-3b": 3.75,
    "qwen2.5-vl-7b": 8.29,
    "qwen3-vl-2b": 2.13,
    "qwen3-vl-4b": 4.44,
    "qwen3-vl-8b": 8.77,
    "qwen3-vl-32b": 33.36,
}


def on_disk(config):
    return {name: weight.shape for weight in weights(config) for name in weight.names}


@pytest.mark.parametrize("name", MODELS)
def test_names_and_shapes_are_those_of_transformers(name):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    import transformers

    config = MODELS[name]
    kind = getattr(transformers, config.architecture.transformers)
    with torch.device("meta"):
        model = kind(kind.config_class(**to_hf(config, {}, "bfloat16")))
    expected = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    assert {in_memory(name): shape for name, shape in on_disk(config).items()} == expected
    assert all(canonical(in_memory(name)) == name for name in on_disk(config))


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts(name):
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(MODELS[name])))
    assert count == sum(map(math.prod, on_disk(MODELS[name]).values()))
    assert round(count / 1e9, 2) == BILLIONS[name]


@pytest.mark.parametrize("name", ["qwen2-vl-2b", "qwen2-vl-7b", "qwen2.5-vl-7b"])
def test_real_configs_are_read_right(name, shared_data):
    raw = json.loads((shared_data / "qwen2vl" / name / "config.json").read_text())
    assert from_hf(raw, name) == MODELS[name]


def test_names_are_those_of_a_real_index(shared_data):
    path = shared_data / "qwen2vl" / "qwen2.5-vl-7b" / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    config = MODELS["qwen2.5-vl-7b"]
    assert set(index["weight_map"]) == set(on_disk(config))
    assert index["metadata"]["total_size"] == 2 * sum(map(math.prod, on_disk(config).values()))
