"""A jitted function together with what it takes to compile it before any weights or data exist."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from chestx_jax import sharding
from chestx_jax.model.config import ModelConfig, with_compute


class Argument(NamedTuple):
    """An abstract argument: a tree of ShapeDtypeStructs, and the shardings of its arrays (such a tree or a prefix)."""

    shapes: Any
    shardings: Any


@dataclass(frozen=True)
class Program:
    """A pure function with its abstract arguments by parameter name, in order; `donated` names the arguments whose
    memory the outputs may reuse."""

    function: Callable
    arguments: dict[str, Argument]
    out_shardings: Any
    donated: tuple[str, ...] = ()

    @property
    def shapes(self) -> dict[str, Any]:
        """The arguments' ShapeDtypeStructs."""
        return {name: argument.shapes for name, argument in self.arguments.items()}

    @property
    def shardings(self) -> dict[str, Any]:
        """The arguments' shardings."""
        return {name: argument.shardings for name, argument in self.arguments.items()}

    def jit(self):
        """The jitted function, to be called with positional arguments; compiled on the first call."""
        return jax.jit(
            self.function,
            in_shardings=tuple(self.shardings.values()),
            out_shardings=self.out_shardings,
            donate_argnames=self.donated,
            compiler_options=_compiler_options((self.shardings, self.out_shardings)),
        )

    def lower(self):
        """The function traced and lowered from its abstract arguments alone."""
        return self.jit().lower(*self.shapes.values())


def batched(shapes, mesh) -> Argument:
    """An argument split over the batch axes of the mesh."""
    return Argument(shapes, sharding.batch_shardings(mesh, shapes))


def replicated(shapes, mesh) -> Argument:
    """An argument that every device holds in full."""
    return Argument(shapes, sharding.replicated(mesh))


def zeros(argument: Argument) -> Program:
    """() → zeros in place of an argument."""
    return Program(
        lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), argument.shapes), {}, argument.shardings
    )


def with_mesh(mesh, function: Callable) -> Callable:
    """`function`, whose sharding constraints refer to `mesh` while it is traced."""

    @functools.wraps(function)  # the names of its parameters are those of the program's arguments
    def traced(*arguments):
        with sharding.use_mesh(mesh):
            return function(*arguments)

    return traced


def resolve_attention(model: ModelConfig, mesh) -> ModelConfig:
    """The model with the attention of the mesh's platform in place of "auto": the kernel that was fastest where it was
    measured, which for cuDNN is in two bytes a number."""
    if model.compute.attention != "auto":
        return model
    fused = {"tpu": "splash", "gpu": "cudnn" if model.compute.dtype == "bfloat16" else "xla"}
    return with_compute(model, attention=fused.get(_platform(mesh), "xla"))


# What the TPU compiler does not do by itself: gather whole weights ahead of their products, overlapped with
# computation, instead of passing shards around a ring within the products.
TPU_OPTIONS = {
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
    "xla_enable_async_all_gather": "true",
    "xla_enable_async_all_reduce": "true",
    "xla_enable_async_collective_permute": "true",
    "xla_enable_async_reduce_scatter_fusion": "true",
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": "true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
}


def _compiler_options(shardings) -> dict[str, str] | None:
    leaves = jax.tree.leaves(shardings, is_leaf=lambda leaf: isinstance(leaf, NamedSharding))
    return TPU_OPTIONS if any(_platform(leaf.mesh) == "tpu" for leaf in leaves) else None


def _platform(mesh) -> str:
    return mesh.devices.flat[0].platform
