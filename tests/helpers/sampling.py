"""Rollouts in one call, as the loops sample them."""

import functools

import jax

from chestx_jax import sharding
from chestx_jax.programs.generation import generation, sampler
from chestx_jax.rollout.loop import sample_rollout
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.tokens.rows import RowsConfig
from tests.helpers.tiny_models import image_spec


def generate(config, sampling, params, prompts, vocabulary, step=0, slots=0, mesh=None):
    """Completions of host `prompts` under stacked `params`, on the host; on one device unless on a `mesh`."""
    mesh = mesh or one_device()
    chosen = compiled(config, sampling, slots, mesh)
    prompts = sharding.put(prompts, sharding.batch_shardings(mesh, prompts))
    vocabulary = sharding.put(vocabulary, sharding.replicated(mesh))
    rollout, _ = sample_rollout(chosen, params, prompts, vocabulary, step, sharding.replicated(mesh))
    return jax.device_get(rollout)


@functools.cache
def one_device():
    return make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])


@functools.cache
def compiled(config, sampling, slots, mesh):
    """The sampler, which keeps what it has compiled."""
    programs = generation(config, image_spec(config), RowsConfig(), mesh.size, sampling, 0, mesh)
    return sampler(config, sampling, mesh, {name: program.jit() for name, program in programs.items()}, slots)
