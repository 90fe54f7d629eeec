"""The supervised fine-tuning loop: packed batches, one optimizer step each, validation and checkpoints at a cadence."""

from collections.abc import Callable
from pathlib import Path

import jax

from chestx_jax import checkpoint, metrics, sharding
from chestx_jax.programs.state import init_state
from chestx_jax.recipes import SftConfig
from chestx_jax.training.preemption import Stopped, stop_on_sigterm
from chestx_jax.training.run_context import RunContext
from chestx_jax.training.step_metrics import PendingStep, fetch_metrics


def train(
    context: RunContext, stage: SftConfig, folder: Path, initial_params: Callable[[], dict], blind: bool = False
) -> dict:
    """Runs (or resumes) a supervised stage in `folder` and returns its final parameters.

    `initial_params` is called only where no checkpoint is saved yet. `blind` replaces every film by zeros. Raises
    Stopped after SIGTERM, with the state saved, and UserError where a loss is not finite.
    """
    program, step_fn = context.programs[f"{stage.name}/step"], context.functions[f"{stage.name}/step"]
    data = context.training_batches(stage, blind)
    with (
        checkpoint.manager(folder / "checkpoints", stage.cadence.keep) as checkpoints,
        stop_on_sigterm() as stop_requested,
    ):
        state = checkpoint.restore(checkpoints, *program.arguments["state"], data)
        if state is None:
            state = init_state(context.job, stage, context.mesh).jit()(initial_params())
        first = int(jax.device_get(state.step))
        pending = None
        with (
            metrics.writer(folder, folder.name, stage.steps, restored_step=first, **context.writer_options) as write,
            jax.transfer_guard("disallow"),
        ):

            def log(pending: PendingStep) -> None:
                measured = fetch_metrics(pending, folder)
                if pending.step % stage.cadence.log == 0 or pending.step == stage.steps:
                    write(pending.step, measured)

            for step in range(first + 1, stage.steps + 1):
                batch = sharding.put(next(data), program.shardings["batch"])
                state, measured = step_fn(state, batch, context.vocabulary)
                if pending:
                    log(pending)  # while the device runs this step
                pending, stop = PendingStep(step, measured, batch), stop_requested(step)
                last = step == stage.steps
                if last or step % stage.cadence.save == 0 or stop:
                    log(pending)  # before saving: a state with a non-finite loss is never saved
                    pending, validation = None, None
                    if stage.validation and (last or step % stage.cadence.validate == 0):
                        validation = {"validation_loss": context.validation_loss(stage, state.params, blind)}
                        write(step, validation)
                    checkpoint.save(checkpoints, state, data, step, validation)
                if stop and not last:
                    checkpoints.wait_until_finished()
                    raise Stopped(
                        f"{stage.name} stopped at step {step} of {stage.steps}; run the same command to go on"
                    )
    return state.params
