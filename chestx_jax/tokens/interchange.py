"""What a Hugging Face folder holds beside weights: tokenizer files, special token ids, image-processor settings."""

import json
from pathlib import Path
from typing import Any

from chestx_jax.errors import UserError
from chestx_jax.files import read_json
from chestx_jax.tokens.patches import ImageSpec

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
)
_SETTINGS_FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "generation_config.json")
_TOKEN_KEYS = {
    "bos_token_id": "<|endoftext|>",
    "eos_token_id": "<|im_end|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "vision_token_id": "<|vision_pad|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}


def token_ids(tokenizer: Any) -> dict[str, int]:
    """The token ids that config.json names, by its keys."""
    vocabulary = tokenizer.get_vocab()
    return {key: vocabulary[token] for key, token in _TOKEN_KEYS.items() if token in vocabulary}


def sidecar_files(folder: str | Path, spec: ImageSpec | None = None) -> dict[str, str | Path]:
    """Files that make an exported model complete: the tokenizer's and the other settings found in `folder`, to be
    copied; with `spec`, the image processor's settings are written from it instead."""
    names = _TOKENIZER_FILES if spec is not None else _TOKENIZER_FILES + _SETTINGS_FILES
    files: dict[str, str | Path] = {name: Path(folder) / name for name in names if (Path(folder) / name).is_file()}
    if spec is not None:
        files["preprocessor_config.json"] = json.dumps(processor_settings(spec), indent=2) + "\n"
    return files


def processor_settings(spec: ImageSpec) -> dict[str, Any]:
    """preprocessor_config.json of an ImageSpec. The Hugging Face processor keeps the aspect ratio, so a fixed size is
    written as its area: square films come out at exactly that size."""
    fixed = spec.height * spec.width if spec.height is not None and spec.width is not None else None
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "min_pixels": fixed or spec.min_pixels,
        "max_pixels": fixed or spec.max_pixels,
        "patch_size": spec.patch_size,
        "temporal_patch_size": spec.temporal_patch_size,
        "merge_size": spec.merge_size,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }


def read_image_spec(folder: str | Path) -> ImageSpec:
    """The dynamic-resolution ImageSpec of a folder's preprocessor_config.json.

    Raises UserError where the file is missing, broken or of another kind of processor.
    """
    path = Path(folder) / "preprocessor_config.json"
    raw = read_json(path, "fetch the model's preprocessor_config.json")
    kind = raw.get("image_processor_type", "Qwen2VLImageProcessor")
    if not kind.startswith("Qwen2VLImageProcessor"):
        raise UserError(f"{path} is for {kind}: images are prepared for Qwen2VLImageProcessor alone.")
    size = raw.get("size") or {}
    return ImageSpec(
        patch_size=raw.get("patch_size", 14),
        temporal_patch_size=raw.get("temporal_patch_size", 2),
        merge_size=raw.get("merge_size", 2),
        mean=tuple(raw.get("image_mean", ImageSpec.mean)),
        std=tuple(raw.get("image_std", ImageSpec.std)),
        height=None,
        width=None,
        min_pixels=raw.get("min_pixels") or size.get("shortest_edge", 56 * 56),
        max_pixels=raw.get("max_pixels") or size.get("longest_edge", 1280 * 28 * 28),
    )
