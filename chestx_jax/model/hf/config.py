"""config.json ↔ ModelConfig, in the flat form and in the nested one."""

from collections.abc import Mapping
from typing import Any

from chestx_jax.errors import UserError
from chestx_jax.model.architecture import ARCHITECTURES
from chestx_jax.model.config import ComputeConfig, ModelConfig, VisionConfig


def from_hf(raw: Mapping[str, Any], where: str, compute: ComputeConfig | None = None) -> ModelConfig:
    """The model a parsed config.json describes; `where` names it in errors.

    Raises UserError for an architecture or a setting this model code does not run, and for a missing key.
    """
    family = raw.get("model_type")
    if family not in ARCHITECTURES:
        described = ", ".join(raw.get("architectures") or [str(family)])
        known = " and ".join(architecture.transformers for architecture in ARCHITECTURES.values())
        raise UserError(f"{where} describes {described}: the models that run here are {known}.")
    text = {**raw, **(raw.get("text_config") or {})}
    _refuse(raw, text, family, where)
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    try:
        heads = text["num_attention_heads"]
        return ModelConfig(
            family=family,
            vocab_size=text["vocab_size"],
            layers=text["num_hidden_layers"],
            width=text["hidden_size"],
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or heads,
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


def to_hf(config: ModelConfig, token_ids: Mapping[str, int], dtype: str) -> dict[str, Any]:
    """config.json in the flat form, which every version of transformers and vLLM reads.

    `token_ids` holds `bos_token_id`, `eos_token_id`, `image_token_id`… of the tokenizer beside it.
    """
    vision = config.vision
    tower: dict[str, Any] = {
        "depth": vision.layers,
        "num_heads": vision.heads,
        "in_channels": vision.channels,
        "in_chans": vision.channels,
        "patch_size": vision.patch_size,
        "spatial_patch_size": vision.patch_size,
        "spatial_merge_size": vision.merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
    }
    if config.family == "qwen2_vl":
        tower |= {"embed_dim": vision.width, "hidden_size": config.width, "mlp_ratio": vision.hidden // vision.width}
        tower |= {"hidden_act": "quick_gelu"}
    else:
        tower |= {"hidden_size": vision.width, "out_hidden_size": config.width, "intermediate_size": vision.hidden}
        tower |= {"window_size": vision.window, "fullatt_block_indexes": list(vision.full_attention_layers)}
        tower |= {"hidden_act": "silu", "tokens_per_second": 2}
    return {
        "architectures": [config.architecture.transformers],
        "model_type": config.family,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": config.width,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.hidden,
        "max_position_embeddings": config.max_positions,
        "max_window_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_scaling": {"type": "mrope", "mrope_section": list(config.mrope_section)},
        "rope_theta": config.rope_theta,
        "sliding_window": config.max_positions,
        "tie_word_embeddings": config.tied,
        "torch_dtype": dtype,
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": tower,
        "vocab_size": config.vocab_size,
        **token_ids,
    }


def _vision(raw: Mapping[str, Any], family: str) -> VisionConfig:
    shared = {
        "layers": raw.get("depth", 32),
        "heads": raw.get("num_heads", 16),
        "patch_size": raw.get("patch_size", 14),
        "temporal_patch_size": raw.get("temporal_patch_size", 2),
        "merge_size": raw.get("spatial_merge_size", 2),
        "channels": raw.get("in_channels") or raw.get("in_chans", 3),
    }
    if family == "qwen2_vl":
        width = raw.get("embed_dim", 1280)
        return VisionConfig(width=width, hidden=int(width * raw.get("mlp_ratio", 4)), **shared)
    return VisionConfig(
        width=raw["hidden_size"],
        hidden=raw["intermediate_size"],
        window=raw.get("window_size", 112),
        full_attention_layers=tuple(raw.get("fullatt_block_indexes", (7, 15, 23, 31))),
        **shared,
    )


def _refuse(raw: Mapping[str, Any], text: Mapping[str, Any], family: str, where: str) -> None:
    """Raises UserError for settings with which the same weights compute another function."""
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    vision = raw.get("vision_config") or {}
    wrong = {
        "quantization_config": raw.get("quantization_config") is not None,
        "hidden_act": text.get("hidden_act", "silu") != "silu",
        "use_sliding_window": bool(text.get("use_sliding_window")),
        "rope type": rope.get("rope_type", rope.get("type", "mrope")) not in ("mrope", "default"),
        "head_dim": text.get("head_dim") not in (None, text["hidden_size"] // text["num_attention_heads"])
        if "hidden_size" in text and "num_attention_heads" in text
        else False,
        "vision_config.hidden_act": vision.get("hidden_act")
        not in (None, {"qwen2_vl": "quick_gelu"}.get(family, "silu")),
    }
    refused = [key for key, bad in wrong.items() if bad]
    if refused:
        raise UserError(
            f"{where} sets {', '.join(refused)} to what this model code does not run: use unchanged Qwen weights."
        )
