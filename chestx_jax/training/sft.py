"""The supervised fine-tuning loop: packed batches, one optimizer step each, validation and checkpoints at a cadence."""

import math
from collections.abc import Callable
from pathlib import Path

import jax

from chestx_jax import checkpoint, metrics, multihost, sharding
from chestx_jax.buckets import BucketUse
from chestx_jax.programs.state import init_state
from chestx_jax.recipes import SftConfig
from chestx_jax.training.preemption import Stopped, describe_resume, stop_on_sigterm
from chestx_jax.training.run_context import RunContext
from chestx_jax.training.speed import Phases, StepTrace, supervised_flops
from chestx_jax.training.step_metrics import PendingStep, fetch_metrics


def train(
    context: RunContext, stage: SftConfig, folder: Path, initial_params: Callable[[], dict], blind: bool = False
) -> dict:
    """Runs (or resumes) a supervised stage in `folder` and returns its final parameters: the last step's, or those with
    the lowest validation loss (`stage.result`).

    `initial_params` is called only where no checkpoint is saved yet. `blind` replaces every film by one of the
    mean tone. Raises Stopped after SIGTERM, with the state saved, and UserError after too many steps without a finite
    gradient.
    """
    program, step_fn = context.programs[f"{stage.name}/step"], context.functions[f"{stage.name}/step"]
    data, validation_batches = context.training_batches(stage, blind), context.validation_batches(stage, blind)
    saved = folder / "checkpoints"
    with (
        checkpoint.manager(saved, stage.cadence.keep) as checkpoints,
        stop_on_sigterm(folder.name, saved) as stop_requested,
    ):
        state = checkpoint.restore(checkpoints, *program.arguments["state"], data)
        if state is None:
            state = init_state(context.job, stage, context.mesh).jit()(initial_params())
        first, pending, use = checkpoints.latest_step() or 0, None, BucketUse()
        lowest = min(checkpoint.validation_losses(saved).values(), default=math.inf)
        if first and multihost.is_primary():
            print(describe_resume(folder, first, stage.steps), flush=True)
        phases, trace = Phases(), StepTrace(folder, context.profile)
        with (
            metrics.writer(folder, folder.name, stage.steps, restored_step=first, **context.writer_options) as write,
            jax.transfer_guard("disallow"),
        ):

            def log(pending: PendingStep) -> None:
                measured = fetch_metrics(pending, folder, stage.optimizer.max_skipped)
                if pending.step % stage.cadence.log == 0 or pending.step == stage.steps:
                    write(pending.step, measured | phases.shares())

            for step in range(first + 1, stage.steps + 1):
                trace.begin(step)
                with phases.phase("input"):
                    packed = next(data)
                    batch = sharding.put(packed, program.shardings["batch"])
                use.add(f"{stage.name}/step", (*packed.tokens.ids.shape[1:], packed.images.valid.shape[1]))
                state, measured = step_fn(state, batch, context.vocabulary)
                trace.end(step, state)
                measured = {**measured, "flops": supervised_flops(context.job.model, packed, stage.batch)}
                if pending:
                    log(pending)  # while the device runs this step
                pending, stop = PendingStep(step, measured, batch), stop_requested(step)
                last, loss = step == stage.steps, None
                save = last or step % stage.cadence.save == 0 or stop
                validate = bool(validation_batches) and (last or step % stage.cadence.validate == 0)
                if save or validate:
                    log(pending)
                    pending = None
                if validate:
                    loss = context.validation_loss(stage, state.params, validation_batches)
                    write(step, {"validation_loss": loss})
                if save or (loss is not None and loss < lowest):
                    checkpoint.save(checkpoints, state, data.get_state(), step, loss)
                lowest = lowest if loss is None else min(lowest, loss)
                if stop:
                    checkpoints.wait_until_finished()
                    raise Stopped(
                        f"{stage.name} stopped at step {step} of {stage.steps}; run the same command to go on"
                    )
        if multihost.is_primary() and use.runs:
            print(use, flush=True)
    if stage.result == "best":
        return checkpoint.load_params(checkpoint.step_folder(folder, "best"), context.job.model, context.mesh)
    return state.params
