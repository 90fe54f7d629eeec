"""Hugging Face checkpoints read: tensor by tensor, straight onto the devices; complete or refused."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from chestx_jax import files
from chestx_jax.errors import UserError
from chestx_jax.model import lora
from chestx_jax.model.config import ComputeConfig, ModelConfig
from chestx_jax.model.hf import safetensors
from chestx_jax.model.hf.config import from_hf
from chestx_jax.model.hf.hub import resolve
from chestx_jax.model.hf.names import Weight, canonical, in_memory, is_buffer, weights
from chestx_jax.model.hf.safetensors import Tensor
from chestx_jax.model.qwen_vl import shapes, shardings


def read_config(path: str | Path, compute: ComputeConfig | None = None) -> ModelConfig:
    """The model of a checkpoint folder or hub name. Raises UserError for a missing, broken or foreign config.json."""
    file = resolve(path) / "config.json"
    raw = files.read_json_object(file, "give a Hugging Face checkpoint folder, or fetch it again")
    return from_hf(raw, str(file), compute)


def source_dtype(path: str | Path) -> str:
    """The parameter dtype that keeps every bit: bfloat16 where all tensors are that, else float32."""
    dtypes = {tensor.dtype.name for tensor in safetensors.find(resolve(path), is_buffer).values()}
    return "bfloat16" if dtypes == {"bfloat16"} else "float32"


def load(path: str | Path, config: ModelConfig, mesh: jax.sharding.Mesh | None = None) -> Any:
    """The weights of a checkpoint folder or hub name as the model's parameters, in `config.compute.param_dtype`.

    On a mesh each process reads only what its devices hold, parameter by parameter; without one all goes to the first
    device. Raises UserError listing every missing, extra and misshapen tensor, or naming one with NaN in it.
    """
    table = weights(config)
    tensors = matching_tensors(resolve(path), config, table)
    by_path = flatten_dict(shardings(config, mesh)) if mesh is not None else {}
    first_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    parameters = flatten_dict(shapes(config))
    loaded = {}
    for weight in table:
        parameter = parameters[weight.path]
        read = _reader(weight, tensors, parameter.shape, np.dtype(parameter.dtype))
        sharding = by_path.get(weight.path, first_device)
        loaded[weight.path] = jax.make_array_from_callback(parameter.shape, sharding, read)
    key = jax.random.key(config.tuning.seed)
    params = lora.add_adapters(config, unflatten_dict(loaded), unflatten_dict(parameters), key)
    return jax.device_put(params, shardings(config, mesh)) if mesh is not None else params


def matching_tensors(folder: str | Path, config: ModelConfig, table: list[Weight]) -> dict[str, Tensor]:
    """The folder's tensors by canonical name. Raises one UserError with every difference from those the model needs."""
    stored = safetensors.find(folder, is_buffer)
    tensors = {canonical(name): tensor for name, tensor in stored.items()}
    twice = sorted({name for name in stored if canonical(name) != name} & {in_memory(name) for name in stored})
    if len(tensors) < len(stored):
        raise UserError(f"{folder} holds tensors under two names each, {', '.join(twice)}: leave one of each out.")
    needed = {name: weight.shape for weight in table for name in weight.names}
    if config.tied and "lm_head.weight" in tensors:  # some writers store the tied head again
        head, embedding = tensors.pop("lm_head.weight"), tensors.get("model.embed_tokens.weight")
        if embedding and not np.array_equal(head.map(), embedding.map()):
            raise UserError(f"{folder} holds its own lm_head.weight but ties it to the embedding: fix config.json.")
    missing = [name for name in needed if name not in tensors]
    extra = [name for name in tensors if name not in needed]
    misshapen = [
        f"{name} ({'×'.join(map(str, tensors[name].shape))}, the model's is {'×'.join(map(str, shape))})"
        for name, shape in needed.items()
        if name in tensors and tensors[name].shape != shape
    ]
    parts = [("missing", missing), ("not of this model", extra), ("of another shape", misshapen)]
    problems = [f"{problem}: {', '.join(names)}" for problem, names in parts if names]
    if problems:
        raise UserError(f"The tensors of {folder} do not fit its config.json; {'; '.join(problems)}.")
    return tensors


def _reader(weight: Weight, tensors: Mapping[str, Tensor], shape: tuple[int, ...], dtype: np.dtype):
    """A function from an index to that part of a parameter; only the layers and slices in it are paged in."""

    def read_tensor(name: str, index: tuple[slice, ...]) -> np.ndarray:
        values = np.ascontiguousarray(weight.to_parameter(tensors[name].map())[index])
        if safetensors.nonfinite(values):
            raise UserError(f"{name} in {tensors[name].file} holds NaN or infinite values: fetch or export it again.")
        return values.astype(dtype, copy=False)

    def read(index: tuple[slice, ...]) -> np.ndarray:
        if not weight.layers:
            return read_tensor(weight.name, index)
        layers = range(*index[0].indices(weight.layers))
        sizes = [len(range(*part.indices(size))) for part, size in zip(index[1:], shape[1:], strict=True)]
        out = _aligned((len(layers), *sizes), dtype)
        for i, layer in enumerate(layers):
            out[i] = read_tensor(weight.names[layer], index[1:])
        return out

    return read


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array whose address is a multiple of 64 bytes: a CPU device uses it without a copy."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)
