"""The supervised loop."""

from collections.abc import Callable
from pathlib import Path

import jax

from chestx_jax import checkpoint, metrics, sharding
from chestx_jax.programs.job import fresh_state
from chestx_jax.recipes import SftConfig
from chestx_jax.training.loop_support import PendingStep, Stopped, fetch_metrics, stop_on_sigterm
from chestx_jax.training.run_context import RunContext


def train(
    context: RunContext, stage: SftConfig, folder: Path, initial: Callable[[], dict], blind: bool = False
) -> dict:
    """Runs (or resumes) a supervised stage in `folder` and returns its final parameters.

    `initial` gives the parameters to start from; it is called only where nothing is saved yet. `blind` replaces every
    film by zeros. Raises Stopped after SIGTERM, with the state saved.
    """
    program, step_fn = context.programs[f"{stage.name}/step"], context.functions[f"{stage.name}/step"]
    shapes, (state_at, batch_at, _) = program.arguments[0], program.in_shardings
    data = context.training_batches(stage, blind)
    with (
        checkpoint.manager(folder / "checkpoints", stage.cadence.keep) as checkpoints,
        stop_on_sigterm() as stopped,
    ):
        state = checkpoint.restore(checkpoints, shapes, state_at, data)
        if state is None:
            state = fresh_state(context.job, stage, context.mesh).jit()(initial())
        first = int(jax.device_get(state.step))
        flight = None
        with (
            metrics.writer(folder, folder.name, stage.steps, restored_step=first, **context.reporting) as write,
            jax.transfer_guard("disallow"),
        ):

            def report(measured: dict[str, float], step: int) -> None:
                if step % stage.cadence.log == 0 or step == stage.steps:
                    write(step, measured)

            for step in range(first + 1, stage.steps + 1):
                batch = sharding.put(next(data), batch_at)
                state, measured = step_fn(state, batch, context.vocabulary)
                if flight:
                    report(fetch_metrics(flight, folder), flight.step)  # of the step before, while this one runs
                flight, stop = PendingStep(step, measured, batch), stopped(step)
                last = step == stage.steps
                if last or step % stage.cadence.save == 0 or stop:
                    report(fetch_metrics(flight, folder), step)  # nothing is saved that a non-finite step made
                    flight, loss = None, None
                    if stage.validation and (last or step % stage.cadence.validate == 0):
                        loss = {"validation_loss": context.validation_loss(stage, state.params, blind)}
                        write(step, loss)
                    checkpoint.save(checkpoints, state, data, step, loss)
                if stop and step < stage.steps:
                    checkpoints.wait_until_finished()
                    raise Stopped(
                        f"{stage.name} stopped at step {step} of {stage.steps}; run the same command to go on"
                    )
    return state.params
