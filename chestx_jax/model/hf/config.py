"""config.json ↔ ModelConfig, in the flat form and in the nested one."""

import math
from collections.abc import Mapping
from typing import Any

from chestx_jax.errors import UserError
from chestx_jax.model.architecture import ARCHITECTURES
from chestx_jax.model.config import ComputeConfig, ModelConfig, VisionConfig

# The vision tower's activation as config.json names it, and the width of a head where the text part names none.
_VISION_ACTIVATION = {"qwen2_vl": "quick_gelu", "qwen2_5_vl": "silu", "qwen3_vl": "gelu_pytorch_tanh"}
_HEAD_DIM = {"qwen3_vl": 128}


def from_hf(raw: Mapping[str, Any], where: str, compute: ComputeConfig | None = None) -> ModelConfig:
    """The model a parsed config.json describes; `where` names it in errors.

    Raises UserError for an architecture or a setting this model code does not run, and for a missing key.
    """
    family = raw.get("model_type")
    if family not in ARCHITECTURES:
        described = ", ".join(raw.get("architectures") or [str(family)])
        if str(family).endswith("_moe"):
            described += ", a mixture of experts"
        *known, last = (architecture.transformers for architecture in ARCHITECTURES.values())
        raise UserError(f"{where} describes {described}: the models that run here are {', '.join(known)} and {last}.")
    text = {**raw, **(raw.get("text_config") or {})}
    _refuse(raw, text, family, where)
    rope = _rope(text)
    try:
        heads, width = text["num_attention_heads"], text["hidden_size"]
        head_dim = text.get("head_dim") or _HEAD_DIM.get(family, 0)
        return ModelConfig(
            family=family,
            vocab_size=text["vocab_size"],
            layers=text["num_hidden_layers"],
            width=width,
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or heads,
            head_dim=0 if head_dim == width // heads else head_dim,
            hidden=text["intermediate_size"],
            rope_theta=float(rope.get("rope_theta") or text.get("rope_theta", 1e6)),
            mrope_section=tuple(rope["mrope_section"]),
            norm_eps=text.get("rms_norm_eps", 1e-6),
            tied=bool(raw.get("tie_word_embeddings") or text.get("tie_word_embeddings", False)),
            max_positions=text.get("max_position_embeddings", 32768),
            initializer_range=text.get("initializer_range", 0.02),
            vision=_vision(raw["vision_config"], family),
            compute=compute or ComputeConfig(),
        )
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{where} lacks or garbles the key {error}: take the config.json the weights came with."
        ) from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


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


def _vision(raw: Mapping[str, Any], family: str) -> VisionConfig:
    shared = {
        "layers": raw.get("depth", 27 if family == "qwen3_vl" else 32),
        "heads": raw.get("num_heads", 16),
        "patch_size": raw.get("patch_size", 16 if family == "qwen3_vl" else 14),
        "temporal_patch_size": raw.get("temporal_patch_size", 2),
        "merge_size": raw.get("spatial_merge_size", 2),
        "channels": raw.get("in_channels") or raw.get("in_chans", 3),
    }
    if family == "qwen2_vl":
        width = raw.get("embed_dim", 1280)
        return VisionConfig(width=width, hidden=int(width * raw.get("mlp_ratio", 4)), **shared)
    shared |= {"width": raw["hidden_size"], "hidden": raw["intermediate_size"]}
    if family == "qwen2_5_vl":
        full_attention = tuple(raw.get("fullatt_block_indexes", VisionConfig.full_attention_layers))
        return VisionConfig(window=raw.get("window_size", 112), full_attention_layers=full_attention, **shared)
    return VisionConfig(
        table_side=math.isqrt(raw.get("num_position_embeddings", VisionConfig.table_side**2)),
        deepstack_layers=tuple(raw.get("deepstack_visual_indexes", VisionConfig.deepstack_layers)),
        **shared,
    )


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


def _rope(text: Mapping[str, Any]) -> Mapping[str, Any]:
    """How positions rotate, under the newer key or the older one."""
    return text.get("rope_parameters") or text.get("rope_scaling") or {}


def _refuse(raw: Mapping[str, Any], text: Mapping[str, Any], family: str, where: str) -> None:
    """Raises UserError for settings with which the same weights compute another function."""
    architecture, rope = ARCHITECTURES[family], _rope(text)
    vision, quantization = raw.get("vision_config") or {}, raw.get("quantization_config")
    heads, width = text.get("num_attention_heads"), text.get("hidden_size")
    equal_heads = None if architecture.head_dim or not (heads and width) else width // heads
    positions = vision.get("num_position_embeddings", VisionConfig.table_side**2)
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
    wrong = {
        f"quantization_config{f' ({method})' if method else ''}": quantization is not None,
        "hidden_act": text.get("hidden_act", "silu") != "silu",
        "attention_bias": bool(text.get("attention_bias", architecture.projection_bias))
        != architecture.projection_bias,
        "use_sliding_window": bool(text.get("use_sliding_window")),
        "rope type": rope.get("rope_type", rope.get("type", "mrope")) not in ("mrope", "default"),
        "mrope_interleaved": bool(rope.get("mrope_interleaved", architecture.interleaved_mrope))
        != architecture.interleaved_mrope,
        "head_dim": equal_heads is not None and text.get("head_dim") not in (None, equal_heads),
        "vision_config.hidden_act": vision.get("hidden_act") not in (None, _VISION_ACTIVATION[family]),
        "vision_config.out_hidden_size": vision.get("out_hidden_size") not in (None, width),
        "vision_config.num_position_embeddings": math.isqrt(positions) ** 2 != positions,
    }
    refused = [key for key, bad in wrong.items() if bad]
    if refused:
        raise UserError(
            f"{where} sets {', '.join(refused)} to what this model code does not run: use unchanged Qwen weights."
        )
