"""Hugging Face checkpoints written: tensor by tensor, whole or not at all; and compared with parameters."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from chestx_jax import files, multihost
from chestx_jax.errors import UserError
from chestx_jax.model import lora
from chestx_jax.model.config import ModelConfig
from chestx_jax.model.hf import safetensors
from chestx_jax.model.hf.config import to_hf
from chestx_jax.model.hf.names import Weight, in_memory, stored, weights
from chestx_jax.model.hf.read import matching_tensors


def save(
    folder: str | Path,
    config: ModelConfig,
    params: Any,
    token_ids: Mapping[str, int],
    sidecars: Mapping[str, str | Path],
    dtype: str | None = None,
    shard_bytes: int = 5 * 10**9,
) -> None:
    """Write a checkpoint folder that transformers and vLLM load: weights in `dtype` (default: the parameters' own),
    config.json, generation_config.json, and `sidecars` (name → text, or the path of a file to copy). Adapters are
    merged into the weights.

    The folder appears whole or not at all and replaces an earlier checkpoint. All processes call this; the primary one
    writes. Raises UserError for another folder of that name, which is left as it is, and for a full disk.
    """
    folder = Path(folder).absolute()
    primary = multihost.is_primary()
    if folder.exists() and not (folder / "config.json").is_file() and any(folder.iterdir()):
        raise UserError(f"{folder} exists and is no checkpoint: give another folder or empty this one.")
    flat = flatten_dict(lora.merge_adapters(config, params))
    table = weights(config)
    storage = np.dtype(flat[table[0].path].dtype) if dtype is None else _storage_dtype(dtype)
    try:
        with files.replacing_folder(folder) if primary else contextlib.nullcontext(folder) as partial:
            _write_weights(partial, config, table, flat, storage, shard_bytes, primary)
            if primary:
                _write_settings(partial, config, token_ids, storage.name, sidecars)
    except OSError as error:
        raise UserError(
            f"{folder} could not be written ({error.strerror}): nothing was left behind; try again."
        ) from error


def save_adapter(folder: str | Path, config: ModelConfig, params: Any, base: str) -> None:
    """Write the adapters alone, as a folder that peft loads onto the model `base`.

    Raises UserError where other weights are trained too, which such a folder cannot hold, and for a full disk.
    """
    flat = flatten_dict(params)
    tuning = config.tuning
    if "train" in (tuning.vision, tuning.merger, tuning.decoder) or not any(path[-1] == "lora_a" for path in flat):
        raise UserError(
            "An adapter holds low-rank updates alone and other weights are trained here: export the whole model."
        )
    tensors: dict[str, np.ndarray] = {}
    for weight in weights(config):
        for half in ("a", "b"):
            leaf = flat.get((*weight.path[:-1], f"lora_{half}"))
            if leaf is not None and weight.path[-1] == "kernel":
                for layer, name in enumerate(weight.names):
                    module = in_memory(name).removesuffix(".weight")
                    part = np.asarray(leaf[layer] if weight.layers else leaf)
                    tensors[f"base_model.model.{module}.lora_{half.upper()}.weight"] = np.ascontiguousarray(part.T)
    settings = {
        "base_model_name_or_path": base,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": tuning.alpha,
        "lora_dropout": tuning.dropout,
        "peft_type": "LORA",
        "r": tuning.rank,
        "target_modules": sorted(name.split(".", 2)[2].rsplit(".lora_A", 1)[0] for name in tensors if "lora_A" in name),
        "task_type": "CAUSAL_LM",
    }
    specs = [(name, array.dtype, array.shape) for name, array in tensors.items()]
    try:
        with files.replacing(Path(folder) / "adapter_model.safetensors") as partial:
            safetensors.write(partial, specs, iter(tensors.values()))
            files.write_json(Path(folder) / "adapter_config.json", settings)
    except OSError as error:
        raise UserError(f"{folder} could not be written ({error.strerror}): free the disk and try again.") from error


def differing(folder: str | Path, config: ModelConfig, params: Any) -> list[str]:
    """Names of the folder's tensors that are not, bit for bit in the narrower of the two dtypes, those of `params`."""
    tensors = matching_tensors(folder, config, weights(config))
    flat = flatten_dict(lora.merge_adapters(config, params))
    different = []
    for weight in weights(config):
        for name, array in zip(weight.names, _layers(weight, flat[weight.path]), strict=True):
            stored = tensors[name].map()
            common = array.dtype if array.dtype.itemsize <= stored.dtype.itemsize else stored.dtype
            ours, theirs = (
                np.ascontiguousarray(x.astype(common, copy=False)).reshape(-1).view(np.uint8) for x in (array, stored)
            )
            if not np.array_equal(ours, theirs):
                different.append(name)
    return different


def _layers(weight: Weight, parameter: Any) -> Iterator[np.ndarray]:
    """The parameter's tensors on the host, one layer at a time. All processes take part in gathering them."""
    for layer in range(weight.layers or 1):
        part = parameter[layer] if weight.layers else parameter
        if isinstance(part, jax.Array) and not part.is_fully_addressable:
            from jax.experimental.multihost_utils import process_allgather

            part = process_allgather(part, tiled=True)
        yield weight.to_tensor(_on_host(part))


def _on_host(array: Any) -> np.ndarray:
    """The array's values in a new array: `np.asarray` would keep them in the `jax.Array` for as long as it lives."""
    if not isinstance(array, jax.Array):
        return np.asarray(array)
    out = np.empty(array.shape, array.dtype)
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            out[shard.index] = np.asarray(shard.data)
    return out


def _write_weights(
    folder: Path,
    config: ModelConfig,
    table: list[Weight],
    flat: Mapping,
    dtype: np.dtype,
    shard_bytes: int,
    primary: bool,
) -> None:
    specs = [(stored(config, name), dtype, weight.shape) for weight in table for name in weight.names]
    arrays = (array.astype(dtype, copy=False) for weight in table for array in _layers(weight, flat[weight.path]))
    shards = _shards(specs, shard_bytes)
    if not primary:  # only takes part in the gathering
        for _ in arrays:
            continue
        return
    if len(shards) == 1:
        safetensors.write(folder / "model.safetensors", specs, arrays)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        safetensors.write(folder / file, shard, (next(arrays) for _ in shard))
        weight_map |= {name: file for name, _, _ in shard}
    total = sum(math.prod(shape) * dtype.itemsize for _, _, shape in specs)
    files.write_json(folder / safetensors.INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(specs: list, shard_bytes: int) -> list[list]:
    """The tensors in order, divided where a file would pass the limit."""
    shards: list[list] = [[]]
    size = 0
    for spec in specs:
        _, dtype, shape = spec
        more = math.prod(shape) * dtype.itemsize
        if shards[-1] and size + more > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(spec)
        size += more
    return shards


def _write_settings(
    folder: Path, config: ModelConfig, token_ids: Mapping[str, int], dtype: str, sidecars: Mapping[str, str | Path]
) -> None:
    files.write_json(folder / "config.json", to_hf(config, token_ids, dtype))
    stop_ids = [token_ids[name] for name in ("eos_token_id", "bos_token_id") if name in token_ids]
    generation = {"do_sample": False, "eos_token_id": stop_ids, "pad_token_id": token_ids.get("bos_token_id")}
    files.write_json(folder / "generation_config.json", generation)
    files.write_sidecars(folder, sidecars)


def _storage_dtype(dtype: str) -> np.dtype:
    by_name = {kind.name: kind for kind in safetensors.DTYPES.values()}
    if dtype not in by_name:
        raise UserError(f"dtype {dtype} is none of {', '.join(by_name)}.")
    return by_name[dtype]
