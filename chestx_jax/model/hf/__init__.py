"""Hugging Face folders: configuration, names of tensors, and weights, read and written."""

from chestx_jax.model.hf.read import load, read_config, source_dtype
from chestx_jax.model.hf.write import differing, save, save_adapter

__all__ = ["differing", "load", "read_config", "save", "save_adapter", "source_dtype"]
