"""A trained model as a complete Hugging Face folder: weights by `model.hf`, the rest by `tokens`."""

from pathlib import Path
from typing import Any

from chestx_jax.model import hf
from chestx_jax.model.config import ModelConfig
from chestx_jax.tokens.interchange import sidecar_files, token_ids
from chestx_jax.tokens.patches import ImageSpec
from chestx_jax.tokens.tokenizer import check_fits, load_tokenizer


def export_model(
    folder: str | Path,
    config: ModelConfig,
    params: Any,
    tokenizer_folder: str | Path,
    spec: ImageSpec | None,
    dtype: str | None = None,
    shard_bytes: int = 5 * 10**9,
) -> None:
    """Write `folder` so that transformers, with the processor of the model's family, and vLLM load it.

    The image processor's settings are those of `spec`, or with None those beside the tokenizer. `dtype` is
    "float32", "bfloat16" or None for the parameters' own. Written whole or not at all; raises UserError where the
    tokenizer, the folder or the disk does not allow it.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    check_fits(tokenizer, config.vocab_size)
    files = sidecar_files(tokenizer_folder, spec)
    hf.save(folder, config, params, token_ids(tokenizer), files, dtype, shard_bytes)
