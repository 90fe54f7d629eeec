"""What a Hugging Face folder holds beside weights: tokenizer files, special token ids, image-processor settings."""

import json
from pathlib import Path
from typing import Any

from chestx_jax.config import to_dataclass
from chestx_jax.errors import UserError
from chestx_jax.files import read_json_object
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
_SETTINGS_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
)
# Names of one processor, by version of transformers; "Fast" computes the same up to rounding.
_PROCESSORS = tuple(f"Qwen2{minor}VLImageProcessor{fast}" for minor in ("", "_5_") for fast in ("", "Fast", "Pil"))
_FIELDS = {
    "patch_size": "patch_size",
    "temporal_patch_size": "temporal_patch_size",
    "merge_size": "merge_size",
    "mean": "image_mean",
    "std": "image_std",
}
_SIZES = {"min_pixels": ("shortest_edge", "min_pixels"), "max_pixels": ("longest_edge", "max_pixels")}  # keys of `size`
_FIXED = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "resample": 3}  # 3: bicubic
_FETCH = "fetch the model's settings again"
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
    """preprocessor_config.json of an ImageSpec. The Hugging Face processor keeps the aspect ratio, so a squashed film's
    size is written as its area: square films come out at exactly that size, others do not."""
    area = spec.height * spec.width if spec.height is not None and spec.width is not None else None
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": area or spec.min_pixels,
        "max_pixels": area or spec.max_pixels,
        "patch_size": spec.patch_size,
        "temporal_patch_size": spec.temporal_patch_size,
        "merge_size": spec.merge_size,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }


def read_image_spec(folder: str | Path) -> ImageSpec | None:
    """The image settings in a folder: `image_processor` of processor_config.json (transformers 5), else
    preprocessor_config.json; None where there are neither.

    Raises UserError for a file that is broken, of another kind of processor, or asks for what `patches` does not do.
    """
    found = _processor(Path(folder))
    if found is None:
        return None
    raw, where = found
    kind = raw.get("image_processor_type") or "Qwen2VLImageProcessor"
    if kind not in _PROCESSORS:
        raise UserError(f"{where} is for {kind}: images are prepared for {_PROCESSORS[0]} alone.")
    given = {key: value for key, value in raw.items() if value is not None}  # null: the default, as if left out
    refused = [key for key, value in _FIXED.items() if given.get(key, value) != value]
    if refused:
        raise UserError(
            f"{where} sets {', '.join(refused)} to what is not done here: leave the processor's own values."
        )
    size = given.get("size", {})
    if not isinstance(size, dict) or not set(size) <= {key for keys in _SIZES.values() for key in keys}:
        raise UserError(f"{where}: size is {size!r} but must hold shortest_edge and longest_edge, in pixels of a film.")
    fields = {ours: given[theirs] for ours, theirs in _FIELDS.items() if theirs in given}
    for field, edges in _SIZES.items():  # a limit on its own goes before one in `size`
        limits = [value for value in (given.get(field), *map(size.get, edges)) if value is not None]
        fields |= {field: limits[0]} if limits else {}
    if given.get("do_normalize") is False:
        fields |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    for name in ("mean", "std"):
        if isinstance(fields.get(name), int | float):  # one for the three channels
            fields[name] = (fields[name],) * 3
    return to_dataclass(ImageSpec, fields, where)


def _processor(folder: Path) -> tuple[dict[str, Any], str] | None:
    """The image processor's settings in a folder, and where they are."""
    nested, flat = folder / "processor_config.json", folder / "preprocessor_config.json"
    if nested.is_file():
        raw = read_json_object(nested, _FETCH).get("image_processor")
        if isinstance(raw, dict):
            return raw, f"{nested}: image_processor"
        if raw is not None:
            raise UserError(f"{nested}: image_processor is {raw!r} but must be an object: {_FETCH}.")
    return (read_json_object(flat, _FETCH), str(flat)) if flat.is_file() else None
