"""Which weights learn, and low-rank additions to those that do not (LoRA, arXiv 2106.09685).

A linear map of a part set to "lora" whose name matches a target holds `lora_a` [in, rank] and `lora_b` [rank, out]
beside its kernel and adds (alpha / rank) · x · a · b; `lora_b` starts at 0, so nothing changes before the first step.
The fused query-key-value map of the vision tower is no linear map of this kind and takes no addition.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, path_aware_map, unflatten_dict

from chestx_jax.model.config import ModelConfig, TuningConfig


def has_adapter(config: ModelConfig, path: Sequence[Any]) -> bool:
    """Whether the linear map at `path` holds a low-rank addition."""
    named = any(re.fullmatch(target, path[-1]) for target in config.tuning.targets)
    return named and _mode(config, path) == "lora"


def is_trainable(config: ModelConfig, path: Sequence[Any]) -> bool:
    """Whether the parameter at `path` is changed by training."""
    mode = _mode(config, path)
    return mode == "train" or (mode == "lora" and path[-1].startswith("lora_"))


def trainable_mask(config: ModelConfig, params: Any) -> Any:
    """A tree like the parameters', True where they learn."""
    return path_aware_map(lambda path, _: is_trainable(config, path), params)


def fully_trainable(config: ModelConfig) -> bool:
    """Whether no part is frozen, which is the ordinary case."""
    return all(mode == "train" for mode in _modes(config.tuning))


def stop_frozen_gradients(config: ModelConfig, params: Any) -> Any:
    """The parameters with no gradient into those that do not learn."""
    if fully_trainable(config):
        return params
    return path_aware_map(lambda path, x: x if is_trainable(config, path) else jax.lax.stop_gradient(x), params)


def without_adapters(config: ModelConfig) -> ModelConfig:
    """The same model without additions."""
    return replace(config, tuning=TuningConfig())


def adapter_scale(config: ModelConfig) -> float:
    """What the low-rank product is multiplied by."""
    return config.tuning.alpha / config.tuning.rank


def merge_adapters(config: ModelConfig, params: Any) -> Any:
    """Parameters of `without_adapters(config)` that compute the same: adapters folded into their kernels in fp32."""
    flat = flatten_dict(params)
    found = {path: leaf for path, leaf in flat.items() if not path[-1].startswith("lora_")}
    for path, b in flat.items():
        if path[-1] == "lora_b":
            a, kernel = flat[(*path[:-1], "lora_a")], flat[(*path[:-1], "kernel")]
            addition = jnp.matmul(a.astype(jnp.float32), b.astype(jnp.float32)) * jnp.float32(adapter_scale(config))
            found[(*path[:-1], "kernel")] = (kernel.astype(jnp.float32) + addition).astype(kernel.dtype)
    return unflatten_dict(found)


def add_adapters(config: ModelConfig, params: Any, shapes: Any, key: jax.Array) -> Any:
    """Parameters of `without_adapters(config)` with fresh adapters: `lora_a` uniform within ±1/√in, `lora_b` zero.
    `shapes` is the tree with adapters."""
    flat = flatten_dict(params)
    for number, (path, leaf) in enumerate(sorted(flatten_dict(shapes).items())):
        if path[-1] == "lora_a":
            bound = 1 / np.sqrt(leaf.shape[-2])
            drawn = jax.random.uniform(jax.random.fold_in(key, number), leaf.shape, jnp.float32, -bound, bound)
            flat[path] = drawn.astype(leaf.dtype)
        elif path[-1] == "lora_b":
            flat[path] = jnp.zeros(leaf.shape, leaf.dtype)
    return unflatten_dict(flat)


def _modes(tuning: TuningConfig) -> tuple[str, str, str]:
    return tuning.vision, tuning.merger, tuning.decoder


def _mode(config: ModelConfig, path: Sequence[Any]) -> str:
    """How the part learns that `path` lies in; embedding and head count as decoder."""
    if path[0] != "vision":
        return config.tuning.decoder
    return config.tuning.merger if path[1].startswith("merger") else config.tuning.vision
