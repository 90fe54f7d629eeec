"""Which weights are trained, and low-rank adapters on those that are not (LoRA, arXiv 2106.09685).

A linear layer of a part set to "lora" whose name matches a target has `lora_a` [in, rank] and `lora_b` [rank, out]
beside its kernel and adds (alpha / rank) · x · a · b; `lora_b` starts at 0, so nothing changes before the first step.
The vision tower's fused query-key-value kernel takes no adapter.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, path_aware_map, unflatten_dict

from chestx_jax.errors import UserError
from chestx_jax.model.config import ModelConfig, TuningConfig


def has_adapter(config: ModelConfig, path: Sequence[Any]) -> bool:
    """Whether the linear layer at `path` has an adapter."""
    matches = any(re.fullmatch(target, path[-1]) for target in config.tuning.targets)
    return matches and _mode(config, path) == "lora"


def check_targets(config: ModelConfig, shapes: Any) -> None:
    """Raise UserError where a part set to "lora" has no adapter, since no target names a linear layer of it. `shapes`
    is the parameter tree with adapters."""
    adapted = {_part(path) for path in flatten_dict(shapes) if path[-1] == "lora_a"}
    for part in ("vision", "merger", "decoder"):
        if getattr(config.tuning, part) == "lora" and part not in adapted:
            raise UserError(
                f"config.model.tuning.{part} is lora and targets {config.tuning.targets} names no linear layer of the "
                f"{part}, so that nothing of it would learn: name some, such as q, v or up."
            )


def is_trainable(config: ModelConfig, path: Sequence[Any]) -> bool:
    """Whether training changes the parameter at `path`."""
    mode = _mode(config, path)
    return mode == "train" or (mode == "lora" and path[-1].startswith("lora_"))


def trainable_mask(config: ModelConfig, params: Any) -> Any:
    """A tree like the parameters', True where they are trained (for `optax.masked`)."""
    return path_aware_map(lambda path, _: is_trainable(config, path), params)


def fully_trainable(config: ModelConfig) -> bool:
    """Whether every part trains all of its weights."""
    tuning = config.tuning
    return all(mode == "train" for mode in (tuning.vision, tuning.merger, tuning.decoder))


def stop_frozen_gradients(config: ModelConfig, params: Any) -> Any:
    """The parameters, with no gradient into those that are not trained."""
    if fully_trainable(config):
        return params
    return path_aware_map(lambda path, x: x if is_trainable(config, path) else jax.lax.stop_gradient(x), params)


def trained(config: ModelConfig, tree: Any) -> Any:
    """What a tree like the parameters' holds for those that are trained."""
    return unflatten_dict({path: leaf for path, leaf in flatten_dict(tree).items() if is_trainable(config, path)})


def with_frozen_zeros(grads: Any, params: Any) -> Any:
    """Gradients of the trained parameters (`trained`) as a tree like `params`, 0 for the others."""
    flat = flatten_dict(grads)
    return unflatten_dict({path: flat.get(path, jnp.zeros_like(x)) for path, x in flatten_dict(params).items()})


def without_adapters(config: ModelConfig) -> ModelConfig:
    """The same model without adapters."""
    return replace(config, tuning=TuningConfig())


def adapter_scale(config: ModelConfig) -> float:
    """The factor alpha / rank of the low-rank product."""
    return config.tuning.alpha / config.tuning.rank


def merge_adapters(config: ModelConfig, params: Any) -> Any:
    """Parameters of `without_adapters(config)` that compute the same: adapters folded into their kernels in fp32."""
    flat = flatten_dict(params)
    merged = {path: leaf for path, leaf in flat.items() if not path[-1].startswith("lora_")}
    for path, b in flat.items():
        if path[-1] == "lora_b":
            a, kernel = flat[(*path[:-1], "lora_a")], flat[(*path[:-1], "kernel")]
            update = jnp.matmul(a.astype(jnp.float32), b.astype(jnp.float32)) * jnp.float32(adapter_scale(config))
            merged[(*path[:-1], "kernel")] = (kernel.astype(jnp.float32) + update).astype(kernel.dtype)
    return unflatten_dict(merged)


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


def _mode(config: ModelConfig, path: Sequence[Any]) -> str:
    """How the part that `path` belongs to is trained."""
    return getattr(config.tuning, _part(path))


def _part(path: Sequence[Any]) -> str:
    """The part of the model that a parameter belongs to; embedding and head belong to the decoder."""
    if path[0] != "vision":
        return "decoder"
    return "merger" if path[1].startswith("merger") else "vision"
