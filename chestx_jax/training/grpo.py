"""The GRPO loop: rollout → rewards → advantages → update."""

from collections.abc import Callable
from pathlib import Path

import jax

from chestx_jax import checkpoint, metrics, multihost, sharding
from chestx_jax.programs.job import fresh_state, kept_reference
from chestx_jax.recipes import GrpoConfig
from chestx_jax.training.loop_support import PendingStep, Stopped, fetch_metrics, stop_on_sigterm
from chestx_jax.training.run_context import RunContext
from chestx_jax.update.steps import Experience


def train(context: RunContext, stage: GrpoConfig, folder: Path, initial: Callable[[], dict]) -> dict:
    """Runs (or resumes) GRPO in `folder` and returns the policy's final parameters.

    `initial` gives the parameters to start from, which are also the reference model's. A step is one batch of prompts:
    one rollout, `stage.updates` optimizer steps. Raises Stopped after SIGTERM, with the state saved.
    """
    job, mesh, functions, words = context.job, context.mesh, context.functions, context.vocabulary
    program = context.programs["grpo/step"]
    shapes, state_at = program.arguments[0], program.in_shardings[0]
    prompts_at = context.programs["grpo/rollout"].in_shardings[1]
    reference_at = context.programs["grpo/score"].in_shardings[1]
    data, tables = context.prompt_batches(stage), context.tables()
    needs_reference, needs_old = stage.policy.kl_weight > 0, stage.updates > 1
    reference_params = kept_reference(job, stage, mesh).jit()(initial()) if needs_reference else None
    with checkpoint.manager(folder / "checkpoints", stage.cadence.keep) as checkpoints, stop_on_sigterm() as stopped:
        state = checkpoint.restore(checkpoints, shapes, state_at, data)
        state = fresh_state(job, stage, mesh).jit()(initial()) if state is None else state
        first = int(jax.device_get(state.step)) // stage.updates
        flight = None
        with (
            metrics.writer(
                folder, folder.name, stage.steps, restored_step=first, show=SHOWN, **context.reporting
            ) as write,
            jax.transfer_guard("disallow"),
        ):
            for step in range(first + 1, stage.steps + 1):
                asked = next(data)
                prompts = sharding.put(asked.prompts, prompts_at)
                reference = sharding.put(asked.targets, reference_at)
                rollout = functions["grpo/rollout"](state.params, prompts, words, state.step)
                scores, advantages, loss_mask, summary = functions["grpo/score"](tables, reference, rollout)
                before, now = functions["grpo/reference"], functions["grpo/logprobs"]
                experience = Experience(
                    prompts=prompts,
                    rollout=rollout,
                    advantages=advantages,
                    loss_mask=loss_mask,
                    ref_logprobs=before(reference_params, prompts, rollout, words) if needs_reference else None,
                    old_logprobs=now(state.params, prompts, rollout, words) if needs_old else None,
                )
                for _ in range(stage.updates):
                    state, measured = functions["grpo/step"](state, experience, words)
                if flight:
                    report(write, context, stage, flight, folder)  # the step before, while this one runs
                flight, stop = PendingStep(step, {**summary, **measured}, (experience, asked, scores)), stopped(step)
                if step == stage.steps or step % stage.cadence.save == 0 or stop:
                    report(write, context, stage, flight, folder)  # nothing is saved that a non-finite step made
                    flight = None
                    checkpoint.save(checkpoints, state, data, step, None)
                if stop and step < stage.steps:
                    checkpoints.wait_until_finished()
                    raise Stopped(f"{folder} stopped at step {step} of {stage.steps}; run the same command to go on")
    return state.params


SHOWN = ("reward/total/mean", "reward/accuracy/mean", "reward/process/mean", "length", "kl")


def report(write: metrics.Write, context: RunContext, stage: GrpoConfig, flight: PendingStep, folder: Path) -> None:
    """Writes a landed step's metrics at the log cadence, and a table of its first group at the sample cadence."""
    measured = fetch_metrics(flight, folder)
    with_samples = flight.step % stage.cadence.samples == 0
    if flight.step % stage.cadence.log and not with_samples and flight.step != stage.steps:
        return
    write(flight.step, measured, sample_rows(context, stage, flight) if with_samples else ())


def sample_rows(context: RunContext, stage: GrpoConfig, flight: PendingStep) -> list[metrics.SampleRow]:
    """The first prompt's completions with their rewards, for reading along."""
    experience, asked, scores = flight.batch
    group = stage.sampling.group
    take = lambda tree: jax.tree.map(lambda x: x[:group], multihost.local_rows(tree))  # noqa: E731
    rollout, terms, total = take(experience.rollout), take(scores.terms), take(scores.sequence)
    sample = asked.samples[0]
    return [
        metrics.SampleRow(
            images=tuple(sample.images),
            question=sample.question,
            text=text,
            answer=sample.answer,
            scores={"sequence": float(total[i]), **{name: float(term[i]) for name, term in terms.items()}},
        )
        for i, text in enumerate(context.texts(rollout.ids, rollout.length))
    ]
