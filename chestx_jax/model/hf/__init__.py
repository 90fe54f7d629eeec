"""Hugging Face folders: configuration, names of tensors, and weights, read and written."""

from chestx_jax.model.hf.weights import differing, load, read_config, save, save_adapter, source_dtype

__all__ = ["differing", "load", "read_config", "save", "save_adapter", "source_dtype"]
