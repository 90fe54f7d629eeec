"""Hugging Face checkpoints in and out: streamed tensor by tensor, complete or refused, written whole or not at all."""

import contextlib
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from chestx_jax import files, multihost
from chestx_jax.errors import UserError
from chestx_jax.model import lora
from chestx_jax.model.config import ComputeConfig, ModelConfig
from chestx_jax.model.hf import safetensors
from chestx_jax.model.hf.config import from_hf, to_hf
from chestx_jax.model.hf.hub import resolve
from chestx_jax.model.hf.names import Weight, canonical, in_memory, weights
from chestx_jax.model.hf.safetensors import Tensor
from chestx_jax.model.qwen_vl import shapes, shardings

_BUFFERS = ("rotary_emb.inv_freq",)  # some old checkpoints store this constant among the weights


def read_config(place: str | Path, compute: ComputeConfig | None = None) -> ModelConfig:
    """The model of a checkpoint folder or hub name. Raises UserError for a missing, broken or foreign config.json."""
    path = resolve(place) / "config.json"
    raw = files.read_json(path, "give a Hugging Face checkpoint folder, or fetch it again")
    return from_hf(raw, str(path), compute)


def source_dtype(place: str | Path) -> str:
    """The parameter dtype that keeps every bit: bfloat16 where all tensors are that, else float32."""
    dtypes = {tensor.dtype.name for tensor in safetensors.find(resolve(place)).values()}
    return "bfloat16" if dtypes == {"bfloat16"} else "float32"


def load(place: str | Path, config: ModelConfig, mesh: jax.sharding.Mesh | None = None) -> Any:
    """The weights of a checkpoint folder or hub name as the model's parameters, in `config.compute.param_dtype`.

    On a mesh each process reads only what its devices hold, parameter by parameter; without one all goes to the first
    device. Raises UserError listing every missing, extra and misshapen tensor, or naming one with NaN in it.
    """
    table = weights(config)
    tensors = _matched(resolve(place), config, table)
    places = flatten_dict(shardings(config, mesh)) if mesh is not None else {}
    whole = shapes(config)
    targets = flatten_dict(whole)
    alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params = {}
    for weight in table:
        target = targets[weight.path]
        read = _reader(weight, tensors, target.shape, np.dtype(target.dtype))
        params[weight.path] = jax.make_array_from_callback(target.shape, places.get(weight.path, alone), read)
    loaded = lora.add_adapters(config, unflatten_dict(params), whole, jax.random.key(config.tuning.seed))
    return jax.device_put(loaded, shardings(config, mesh)) if mesh is not None else loaded


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
    config.json, generation_config.json, and `sidecars` (name → text, or the path of a file to copy). Low-rank additions
    are folded into the weights.

    The folder appears whole or not at all; an earlier checkpoint of that name is replaced, any other folder is left
    alone with a UserError, as is a disk that is full. With several processes all call it and the first one writes.
    """
    folder = Path(folder).absolute()
    writes = multihost.is_primary()
    if folder.exists() and not (folder / "config.json").is_file() and any(folder.iterdir()):
        raise UserError(f"{folder} exists and is no checkpoint: give another folder or empty this one.")
    flat = flatten_dict(lora.merge_adapters(config, params))
    table = weights(config)
    kind = np.dtype(flat[table[0].path].dtype) if dtype is None else safetensors.DTYPES[_code(dtype)]
    try:
        with files.replacing_folder(folder) if writes else contextlib.nullcontext(folder) as partial:
            _write_weights(partial, table, flat, kind, shard_bytes, writes)
            if writes:
                _write_settings(partial, config, token_ids, kind.name, sidecars)
    except OSError as error:
        raise UserError(
            f"{folder} could not be written ({error.strerror}): nothing was left behind; try again."
        ) from error


def save_adapter(folder: str | Path, config: ModelConfig, params: Any, base: str) -> None:
    """Write the low-rank additions alone, as an adapter folder that peft loads onto the model `base`.

    Raises UserError where other weights learned too: an adapter cannot hold them, export the whole model then.
    """
    flat = flatten_dict(params)
    tuning = config.tuning
    if "train" in (tuning.vision, tuning.merger, tuning.decoder) or not any(path[-1] == "lora_a" for path in flat):
        raise UserError(
            "An adapter holds low-rank additions alone and other weights learn here: export the whole model."
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
    tensors = _matched(folder, config, weights(config))
    flat = flatten_dict(lora.merge_adapters(config, params))
    wrong = []
    for weight in weights(config):
        for name, array in zip(weight.names, _layers(weight, flat[weight.path]), strict=True):
            stored = tensors[name].map()
            common = array.dtype if array.dtype.itemsize <= stored.dtype.itemsize else stored.dtype
            here, there = (
                np.ascontiguousarray(x.astype(common, copy=False)).reshape(-1).view(np.uint8) for x in (stored, array)
            )
            if not np.array_equal(here, there):
                wrong.append(name)
    return wrong


def _matched(folder: str | Path, config: ModelConfig, table: list[Weight]) -> dict[str, Tensor]:
    """The folder's tensors by canonical name, exactly those the model wants, or one error with every difference."""
    found = {canonical(name): tensor for name, tensor in safetensors.find(folder).items()}
    found = {name: tensor for name, tensor in found.items() if not name.endswith(_BUFFERS)}
    wanted = {name: weight.shape for weight in table for name in weight.names}
    if config.tied and "lm_head.weight" in found:  # some writers store the tied head once more
        head, embedding = found.pop("lm_head.weight"), found.get("model.embed_tokens.weight")
        if embedding and not np.array_equal(head.map(), embedding.map()):
            raise UserError(f"{folder} holds its own lm_head.weight but ties it to the embedding: mend config.json.")
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    misshapen = [
        f"{name} ({'×'.join(map(str, found[name].shape))}, the model's is {'×'.join(map(str, shape))})"
        for name, shape in wanted.items()
        if name in found and found[name].shape != shape
    ]
    parts = [("missing", missing), ("not of this model", extra), ("of another shape", misshapen)]
    complaints = [f"{what}: {', '.join(names)}" for what, names in parts if names]
    if complaints:
        raise UserError(f"The tensors of {folder} do not fit its config.json; {'; '.join(complaints)}.")
    return found


def _reader(weight: Weight, tensors: Mapping[str, Tensor], shape: tuple[int, ...], dtype: np.dtype):
    """Reads one device's part of a parameter: only its layers, and of each only its slices, are paged in."""

    def one(name: str, index: tuple[slice, ...]) -> np.ndarray:
        part = weight.to_parameter(tensors[name].map())[index]
        values = np.ascontiguousarray(part)
        if safetensors.nonfinite(values):
            raise UserError(f"{name} in {tensors[name].file} holds NaN or infinite values: fetch or export it again.")
        return values.astype(dtype, copy=False)

    def read(index: tuple[slice, ...]) -> np.ndarray:
        if not weight.layers:
            return one(weight.name, index)
        layers = range(*index[0].indices(weight.layers))
        sizes = [len(range(*part.indices(size))) for part, size in zip(index[1:], shape[1:], strict=True)]
        out = _aligned((len(layers), *sizes), dtype)
        for place, layer in enumerate(layers):
            out[place] = one(weight.names[layer], index[1:])
        return out

    return read


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array at a multiple of 64 bytes, which a CPU device takes as its own instead of copying it."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def _layers(weight: Weight, parameter: Any) -> Iterator[np.ndarray]:
    """The parameter's tensors on the host, one layer at a time."""
    for layer in range(weight.layers or 1):
        part = parameter[layer] if weight.layers else parameter
        if isinstance(part, jax.Array) and not part.is_fully_addressable:
            from jax.experimental.multihost_utils import process_allgather

            part = process_allgather(part, tiled=True)
        yield weight.to_tensor(_on_host(part))


def _on_host(array: Any) -> np.ndarray:
    """The array's values in a copy of their own: what `np.asarray` gathers, a `jax.Array` keeps as long as it lives."""
    if not isinstance(array, jax.Array):
        return np.asarray(array)
    out = np.empty(array.shape, array.dtype)
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            out[shard.index] = np.asarray(shard.data)
    return out


def _write_weights(
    folder: Path, table: list[Weight], flat: Mapping, dtype: np.dtype, shard_bytes: int, writes: bool
) -> None:
    specs = [(name, dtype, weight.shape) for weight in table for name in weight.names]
    arrays = (array.astype(dtype, copy=False) for weight in table for array in _layers(weight, flat[weight.path]))
    shards = _shards(specs, shard_bytes)
    if not writes:  # take part in gathering what this process holds
        for _ in arrays:
            continue
        return
    if len(shards) == 1:
        safetensors.write(folder / "model.safetensors", specs, arrays)
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        safetensors.write(folder / file, shard, (next(arrays) for _ in shard))
        places |= {name: file for name, _, _ in shard}
    total = sum(math.prod(shape) * dtype.itemsize for _, _, shape in specs)
    files.write_json(folder / safetensors.INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _shards(specs: list, shard_bytes: int) -> list[list]:
    """Tensors in order, a new file where the next would pass the limit."""
    shards: list[list] = [[]]
    size = 0
    for spec in specs:
        _, dtype, shape = spec
        needs = math.prod(shape) * dtype.itemsize
        if shards[-1] and size + needs > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(spec)
        size += needs
    return shards


def _write_settings(
    folder: Path, config: ModelConfig, token_ids: Mapping[str, int], dtype: str, sidecars: Mapping[str, str | Path]
) -> None:
    files.write_json(folder / "config.json", to_hf(config, token_ids, dtype))
    ends = [token_ids[name] for name in ("eos_token_id", "bos_token_id") if name in token_ids]
    generation = {"do_sample": False, "eos_token_id": ends, "pad_token_id": token_ids.get("bos_token_id")}
    files.write_json(folder / "generation_config.json", generation)
    for name, content in sidecars.items():
        if isinstance(content, Path):
            shutil.copyfile(content, folder / name)
        else:
            files.write_text(folder / name, content)


def _code(dtype: str) -> str:
    codes = {kind.name: code for code, kind in safetensors.DTYPES.items()}
    if dtype not in codes:
        raise UserError(f"dtype {dtype} is none of {', '.join(codes)}.")
    return codes[dtype]
