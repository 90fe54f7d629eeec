"""Parameters from the place that a stage's `init` names."""

from typing import Any

from chestx_jax.inference.places import find_checkpoint, load_params
from chestx_jax.programs.state import init_params
from chestx_jax.recipes import JobConfig, SftConfig
from chestx_jax.training.run_context import RunContext


def load_weights(context: RunContext, place: str) -> Any:
    """Parameters from "random", "orbax:DIR" or "hf:DIR", sharded over the mesh."""
    if place == "random":
        return init_params(context.job, first_seed(context.job), context.mesh).jit()()
    advice = f"config.init is {place!r}: give random, orbax:DIR, hf:DIR, or the configuration of a first stage"
    return load_params(find_checkpoint(place, advice), context.job.model, context.mesh)


def first_seed(job: JobConfig) -> int:
    """The seed of random weights: that of the stage trained first."""
    stage: str | SftConfig = job.init
    seed = 0
    while isinstance(stage, SftConfig):
        seed, stage = stage.seed, stage.init
    return seed
