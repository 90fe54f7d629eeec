"""The GRPO loop (group relative policy optimisation, DeepSeekMath, arXiv 2402.03300): PPO without a value model, in
whose place the mean reward of several completions of the same prompt is the baseline.

One step, on one batch of N prompts:

    rollout     the policy samples G completions of each prompt
    score       each completion gets a reward, and its advantage is the reward's distance from the mean of its group
                over the group's standard deviation (`update.scoring`). Groups whose rewards are all equal may give
                their places to other prompts, in further rounds of both (`training.dynamic_sampling`)
    split       groups sorted by length into micro-batches, each padded to its own bucket (`update.micro_batches`)
    reference   log-probs of the sampled tokens under the initial policy, for the KL term
    update      an optimizer step on each mini-batch, `stage.updates` times over (`update.policy_objective`)

What the settings select: `stage.rewards` the terms of the reward; `stage.advantages` GRPO, Dr.GRPO or RLOO, and credit
per reasoning step; `stage.policy` the clip of the probability ratio (PPO's, with dual clip, or DAPO's upper clip; per
token or, as in GSPO, per sequence; CISPO), whose log-probs the ratio is to and how a sampler that differs from the
trainer is corrected, the KL estimate against the reference model (k3 by default) and its weight, the entropy bonus, and
what the loss averages over; `stage.overlong` what happens to completions cut off by the length limit. With one
optimizer step a batch the sampling policy is the current one, the ratio is 1 and nothing is clipped.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax

from chestx_jax import checkpoint, metrics, multihost
from chestx_jax.programs.state import init_reference, init_state
from chestx_jax.recipes import GrpoConfig
from chestx_jax.training.dynamic_sampling import BatchSampler
from chestx_jax.training.policy_update import PolicyUpdate
from chestx_jax.training.preemption import Stopped, describe_resume, stop_on_sigterm
from chestx_jax.training.run_context import RunContext
from chestx_jax.training.speed import Phases, StepTrace, patches_of_films
from chestx_jax.training.step_metrics import PendingStep, fetch_metrics
from chestx_jax.update.losses import policy_warnings
from chestx_jax.update.micro_batches import Experience

LOG = logging.getLogger(__name__)
PROGRESS_METRICS = ("reward/total/mean", "reward/accuracy/mean", "reward/process/mean", "length", "kl")


def train(context: RunContext, stage: GrpoConfig, folder: Path, initial_params: Callable[[], dict]) -> dict:
    """Runs (or resumes) GRPO in `folder` and returns the policy's final parameters.

    `initial_params` gives the parameters to start from, which are also the reference model's. Raises Stopped after
    SIGTERM, with the state saved, and UserError after too many steps without a finite gradient.
    """
    job, mesh, vocabulary = context.job, context.mesh, context.vocabulary
    data, phases = context.prompt_batches(stage), Phases()
    policy = PolicyUpdate(job, stage, mesh, context.programs, context.functions, vocabulary)
    sampler = BatchSampler(
        stage=stage,
        data=data,
        own_rows=context.own_rows(stage.prompts),
        sampler=context.sampler("grpo", stage.sampling, stage.rollout_slots, stage.rollout_tensor),
        policy=policy,
        score=partial(context.functions["grpo/score"], context.reward_tables()),
        shardings=context.programs["grpo/score"].shardings,
        vocabulary=vocabulary,
        phases=phases,
    )
    for sentence in policy_warnings(stage.policy) if multihost.is_primary() else ():
        LOG.warning("%s", sentence)
    needs_reference = stage.policy.kl_weight > 0
    reference_params = init_reference(job, stage, mesh).jit()(initial_params()) if needs_reference else None
    saved = folder / "checkpoints"
    with (
        checkpoint.manager(saved, stage.cadence.keep) as checkpoints,
        stop_on_sigterm(folder.name, saved) as stop_requested,
    ):
        state = checkpoint.restore(checkpoints, *context.programs["grpo/step"].arguments["state"], data)
        if state is None:
            state = init_state(job, stage, mesh).jit()(initial_params())
        first, pending = checkpoints.latest_step() or 0, None
        if first and multihost.is_primary():
            print(describe_resume(folder, first, stage.steps), flush=True)

        def log_pending() -> None:
            nonlocal pending
            if pending:
                log(write, context, stage, pending, folder, phases)
            pending = None

        def stop_at(step: int) -> None:
            checkpoints.wait_until_finished()
            raise Stopped(f"{folder} stopped at step {step} of {stage.steps}; run the same command to go on")

        trace = StepTrace(folder, context.profile)
        phases.shares()  # what came before is of no step
        options = {"restored_step": first, "show": PROGRESS_METRICS, **context.writer_options}
        with metrics.writer(folder, folder.name, stage.steps, **options) as write, jax.transfer_guard("disallow"):
            for step in range(first + 1, stage.steps + 1):
                trace.begin(step)
                position = data.get_state()
                sampled = sampler.sample(state.params, step - 1, log_pending)
                if stop_requested(2 * step - 1):  # sampling takes most of a step, and has changed nothing yet
                    checkpoint.save(checkpoints, state, position, step - 1, None)
                    stop_at(step - 1)
                with phases.phase("reference"):
                    scored = sampled.scored
                    experience = Experience(sampled.prompts, sampled.rollout, scored.advantages, scored.loss_mask)
                    lengths = policy.lengths(experience, sampled.image_slots)
                    parts = policy.split(experience, lengths)
                    logprobs = policy.logprobs(
                        reference_params, state.params if stage.needs_old_logprobs else None, parts
                    )
                    jax.block_until_ready(logprobs)
                with phases.phase("update"):
                    state, measured = policy.update(state, parts, logprobs)
                    jax.block_until_ready(measured)
                trace.end(step, state)
                work = policy.work(lengths, patches_of_films(sampled.batch.prompts), parts)
                inputs = (sampled.rollout, sampled.batch, scored.scores, parts, logprobs)
                pending, stop = PendingStep(step, sampled.metrics | measured | work, inputs), stop_requested(2 * step)
                if step == stage.steps or step % stage.cadence.save == 0 or stop:
                    log_pending()
                    checkpoint.save(checkpoints, state, data.get_state(), step, None)
                if stop:
                    stop_at(step)
        if multihost.is_primary() and policy.use.runs:
            print(policy.use, flush=True)
    return state.params


def log(
    write: metrics.Write, context: RunContext, stage: GrpoConfig, pending: PendingStep, folder: Path, phases: Phases
) -> None:
    """Writes a step's metrics and the shares of time at the log cadence, and a table of its first group at the sample
    cadence."""
    measured = fetch_metrics(pending, folder, stage.optimizer.max_skipped)
    with_samples = pending.step % stage.cadence.samples == 0
    if pending.step % stage.cadence.log and not with_samples and pending.step != stage.steps:
        return
    write(pending.step, measured | phases.shares(), sample_rows(context, stage, pending) if with_samples else ())


def sample_rows(context: RunContext, stage: GrpoConfig, pending: PendingStep) -> list[metrics.SampleRow]:
    """The completions of the step's first prompt with their reward terms."""
    rollout, prompt_batch, scores, *_ = pending.batch
    first_group = lambda tree: jax.tree.map(lambda x: x[: stage.sampling.group], multihost.local_rows(tree))  # noqa: E731
    rollout, terms, total = first_group(rollout), first_group(scores.terms), first_group(scores.sequence)
    sample = prompt_batch.samples[0]
    return [
        metrics.SampleRow(
            images=tuple(sample.images),
            question=sample.question,
            text=text,
            answer=sample.answer,
            scores={"sequence": float(total[i]), **{name: float(term[i]) for name, term in terms.items()}},
        )
        for i, text in enumerate(context.decode(rollout.ids, rollout.length))
    ]
