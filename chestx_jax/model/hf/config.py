"""config.json ↔ ModelConfig, in the flat form and in the nested one."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from chestx_jax.config import convert, to_dataclass
from chestx_jax.errors import UserError
from chestx_jax.model.architecture import ARCHITECTURES
from chestx_jax.model.config import ComputeConfig, ModelConfig, VisionConfig

# The vision tower's activation as config.json names it, and the width of a head where the text part names none.
_VISION_ACTIVATION = {"qwen2_vl": "quick_gelu", "qwen2_5_vl": "silu", "qwen3_vl": "gelu_pytorch_tanh"}
_HEAD_DIM = {"qwen3_vl": 128}
# What transformers takes where config.json does not say; the families of each that differ from the others.
_ROPE_THETA, _NORM_EPS = {"qwen3_vl": 5e5}, {"qwen3_vl": 1e-6}
_OUTER_TIE = ("qwen3_vl",)  # the text part's flag of tied embeddings says nothing
_TAKE = "take the config.json the weights came with"


def from_hf(raw: Mapping[str, Any], where: str, compute: ComputeConfig | None = None) -> ModelConfig:
    """The model a parsed config.json describes; `where` names it in errors.

    What a file leaves out has the value that transformers gives it, but for sizes, which it must name. Raises UserError
    for an architecture or a setting this model code does not run, and for a value that is missing or garbled.
    """
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in ARCHITECTURES:
        raise UserError(f"{where} describes {_described(raw)}: the models that run here are {_known()}.")
    outer = _Keys(raw, where)
    text = outer.group("text_config") if raw.get("text_config") is not None else outer
    vision, rope = outer.group("vision_config"), _rope(text)
    _refuse(outer, text, vision, rope, family)
    heads, width = text.read("num_attention_heads", int), text.read("hidden_size", int)
    head_dim = text.read("head_dim", int, _HEAD_DIM.get(family, 0))
    if heads < 1:
        raise UserError(f"{text.where}: num_attention_heads is {heads} but must be at least 1.")
    values = {
        "family": family,
        "vocab_size": text.read("vocab_size", int),
        "layers": text.read("num_hidden_layers", int),
        "width": width,
        "heads": heads,
        "kv_heads": text.read("num_key_value_heads", int, heads),
        "head_dim": 0 if head_dim * heads == width else head_dim,
        "hidden": text.read("intermediate_size", int),
        "rope_theta": rope.read("rope_theta", float, text.read("rope_theta", float, _ROPE_THETA.get(family, 1e6))),
        "mrope_section": rope.read("mrope_section", tuple[int, int, int]),
        "norm_eps": text.read("rms_norm_eps", float, _NORM_EPS.get(family, 1e-5)),
        "tied": _is_tied(outer, text, family),
        "max_positions": text.read("max_position_embeddings", int, 32768),
        "initializer_range": text.read("initializer_range", float, 0.02),
        "vision": _vision(vision, family),
        "compute": compute or ComputeConfig(),
    }
    return to_dataclass(ModelConfig, values, where)


class _Keys(NamedTuple):
    """An object of a config.json, and where it is."""

    values: Mapping[str, Any]
    where: str

    def group(self, key: str) -> "_Keys":
        """The object under a key. Raises UserError where it is none."""
        if not isinstance(self.values.get(key), Mapping):
            raise UserError(f"{self.where}: {key} is {self.values.get(key)!r} but must be an object: {_TAKE}.")
        return _Keys(self.values[key], f"{self.where}: {key}")

    def read(self, key: str, hint: Any, default: Any = None) -> Any:
        """The value under a key as the type `hint`; null and a key that is not there are the default.

        Raises UserError for a value of another type, and for none where there is no default.
        """
        value = self.values.get(key)
        if value is None and default is None:
            raise UserError(f"{self.where} lacks {key}: {_TAKE}.")
        return default if value is None else convert(value, hint, f"{self.where}: {key}")


def _described(raw: Mapping[str, Any]) -> str:
    """What a config.json of no known family says that it is."""
    names = raw.get("architectures")
    family = raw.get("model_type")
    described = ", ".join(map(str, names)) if isinstance(names, list) and names else str(family)
    return f"{described}, a mixture of experts" if str(family).endswith("_moe") else described


def _known() -> str:
    *first, last = (architecture.transformers for architecture in ARCHITECTURES.values())
    return f"{', '.join(first)} and {last}"


def _is_tied(outer: _Keys, text: _Keys, family: str) -> bool:
    """The outer flag, or for the families that had it there, the text part's."""
    tied = outer.read("tie_word_embeddings", bool, False)
    return tied if family in _OUTER_TIE else tied or text.read("tie_word_embeddings", bool, False)


def to_hf(config: ModelConfig, token_ids: Mapping[str, int], dtype: str) -> dict[str, Any]:
    """config.json in the form that every version of transformers and vLLM that knows the family reads: flat, but for
    Qwen3-VL.

    `token_ids` holds `bos_token_id`, `eos_token_id`, `image_token_id`… of the tokenizer beside it.
    """
    outer = {
        "architectures": [config.architecture.transformers],
        "model_type": config.family,
        "tie_word_embeddings": config.tied,
        "torch_dtype": dtype,
        "vision_config": _tower(config),
    }
    text = {
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": config.width,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.hidden,
        "max_position_embeddings": config.max_positions,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }
    section = list(config.mrope_section)
    if config.family == "qwen3_vl":
        rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": section}
        ends = {name: id for name, id in token_ids.items() if name in ("bos_token_id", "eos_token_id")}
        text |= {"model_type": "qwen3_vl_text", "attention_bias": False, "head_dim": config.head_width, **ends}
        text |= {"rope_scaling": rope, "tie_word_embeddings": config.tied, "dtype": dtype}
        return {**outer, "text_config": text, **token_ids}
    text |= {"rope_scaling": {"type": "mrope", "mrope_section": section}, "max_window_layers": config.layers}
    text |= {"sliding_window": config.max_positions, "use_sliding_window": False}
    return {**outer, **text, **token_ids}


def _vision(tower: _Keys, family: str) -> dict[str, Any]:
    """Fields of VisionConfig."""
    shared = {
        "layers": tower.read("depth", int, 27 if family == "qwen3_vl" else 32),
        "heads": tower.read("num_heads", int, 16),
        "patch_size": tower.read("patch_size", int, 16 if family == "qwen3_vl" else 14),
        "temporal_patch_size": tower.read("temporal_patch_size", int, 2),
        "merge_size": tower.read("spatial_merge_size", int, 2),
        "channels": tower.read("in_channels", int, tower.read("in_chans", int, 3)),
    }
    if family == "qwen2_vl":
        width = tower.read("embed_dim", int, 1280)
        return {"width": width, "hidden": int(width * tower.read("mlp_ratio", float, 4.0)), **shared}
    shared |= {"width": tower.read("hidden_size", int), "hidden": tower.read("intermediate_size", int)}
    layers = tuple[int, ...]
    if family == "qwen2_5_vl":
        full_attention = tower.read("fullatt_block_indexes", layers, VisionConfig.full_attention_layers)
        return {"window": tower.read("window_size", int, 112), "full_attention_layers": full_attention, **shared}
    deepstack = tower.read("deepstack_visual_indexes", layers, VisionConfig.deepstack_layers)
    return {"table_side": math.isqrt(_positions(tower)), "deepstack_layers": deepstack, **shared}


def _positions(tower: _Keys) -> int:
    """Entries of the vision tower's position table."""
    positions = tower.read("num_position_embeddings", int, VisionConfig.table_side**2)
    if positions < 1:
        raise UserError(f"{tower.where}: num_position_embeddings is {positions} but must be at least 1.")
    return positions


def _tower(config: ModelConfig) -> dict[str, Any]:
    """`vision_config` of config.json."""
    vision = config.vision
    tower: dict[str, Any] = {
        "depth": vision.layers,
        "num_heads": vision.heads,
        "hidden_act": _VISION_ACTIVATION[config.family],
        "in_channels": vision.channels,
        "patch_size": vision.patch_size,
        "spatial_merge_size": vision.merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
    }
    if config.family == "qwen2_vl":
        sizes = {"embed_dim": vision.width, "hidden_size": config.width, "mlp_ratio": vision.hidden // vision.width}
        return tower | sizes | {"in_chans": vision.channels, "spatial_patch_size": vision.patch_size}
    tower |= {"hidden_size": vision.width, "out_hidden_size": config.width, "intermediate_size": vision.hidden}
    if config.family == "qwen2_5_vl":
        tower |= {"window_size": vision.window, "fullatt_block_indexes": list(vision.full_attention_layers)}
        return tower | {"in_chans": vision.channels, "spatial_patch_size": vision.patch_size, "tokens_per_second": 2}
    tower |= {"model_type": "qwen3_vl", "num_position_embeddings": vision.table_side**2}
    return tower | {"deepstack_visual_indexes": list(vision.deepstack_layers)}


def _rope(text: _Keys) -> _Keys:
    """How positions rotate, under the older key or the newer one, as transformers chooses."""
    key = "rope_scaling" if text.values.get("rope_scaling") else "rope_parameters"
    return text.group(key)


def _refuse(outer: _Keys, text: _Keys, vision: _Keys, rope: _Keys, family: str) -> None:
    """Raises UserError for settings with which the same weights compute another function."""
    architecture = ARCHITECTURES[family]
    quantization = outer.values.get("quantization_config")
    heads, width = text.read("num_attention_heads", int), text.read("hidden_size", int)
    head_dim = text.values.get("head_dim")
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
    bias, interleaved = architecture.projection_bias, architecture.interleaved_mrope
    wrong = {
        f"quantization_config{f' ({method})' if method else ''}": quantization is not None,
        "hidden_act": text.read("hidden_act", str, "silu") != "silu",
        "attention_bias": text.read("attention_bias", bool, bias) != bias,
        "use_sliding_window": text.read("use_sliding_window", bool, False),
        "rope type": rope.read("rope_type", str, rope.read("type", str, "mrope")) not in ("mrope", "default"),
        "mrope_interleaved": rope.read("mrope_interleaved", bool, interleaved) != interleaved,
        "head_dim": not architecture.head_dim and head_dim not in (None, width // max(heads, 1)),
        "vision_config.hidden_act": vision.values.get("hidden_act") not in (None, _VISION_ACTIVATION[family]),
        "vision_config.out_hidden_size": vision.values.get("out_hidden_size") not in (None, width),
        "vision_config.num_position_embeddings": math.isqrt(_positions(vision)) ** 2 != _positions(vision),
    }
    refused = [key for key, bad in wrong.items() if bad]
    if refused:
        raise UserError(
            f"{outer.where} sets {', '.join(refused)} to what this model code does not run: use unchanged Qwen weights."
        )
