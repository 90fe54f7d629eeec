"""The main job: prepare the data, run the stages in order, test after each, export. Run again, it resumes."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from chestx_jax import checkpoint, multihost
from chestx_jax.config import to_dict
from chestx_jax.errors import UserError
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.export import export_model
from chestx_jax.programs.program import resolve_attention
from chestx_jax.recipes import JobConfig, SftConfig
from chestx_jax.tokens.patches import squash_notice
from chestx_jax.training import grpo, sft
from chestx_jax.training.changes import adopt_configuration, changes_since, describe_changes, is_finished
from chestx_jax.training.model_tests import TrainedModel, predict_test, refresh_results
from chestx_jax.training.run_context import RunContext, make_context
from chestx_jax.training.workdir import prepare


def run(job: JobConfig, workdir: Path, profile: int = 0) -> None:
    """Runs whatever of the job is not done yet under `workdir`.

    Leaves the data and tokenizer (phantom jobs), a folder per stage with checkpoints, metrics and final parameters, a
    file per test, `report.html`, `scores.json`, and `hf/`, the last model as a Hugging Face folder.
    With `profile`, that step of each stage leaves a trace in the stage's folder.
    """
    started = time.monotonic()
    workdir.mkdir(parents=True, exist_ok=True)
    if multihost.is_primary():
        for line in describe_changes(adopt_configuration(job, workdir), job, workdir):
            print(line, flush=True)
        prepare(job, workdir)
    multihost.barrier("prepared")
    if differs := changes_since(workdir / "config.json", job):
        raise UserError(f"the processes of this run have different configurations, {differs[0]}: give all the same")
    context = make_context(job, workdir, profile)
    if multihost.is_primary():
        attention = resolve_attention(job.model, context.mesh).compute.attention
        print(f"attention: {attention}; single queries, as in decoding: xla", flush=True)
    _print_squash(job)
    predictions: dict[str, list[Prediction]] = {}
    tables = ""
    for model in trained_models(context):
        if job.evaluation:
            predictions[model.name] = predict_test(context, job.evaluation, model)
            tables = refresh_results(context, predictions)
    export(context, model)
    if tables:
        print(tables, flush=True)
    print(f"done in {time.monotonic() - started:.0f} s; the model is in {workdir / 'hf'}", flush=True)


def trained_models(context: RunContext) -> Iterator[TrainedModel]:
    """The models to test, each trained when it is asked for; the last is the job's result."""
    job = context.job
    sft_place = train_sft(context, job.init)
    if job.evaluation and job.evaluation.blind and isinstance(job.init, SftConfig):
        yield TrainedModel("blind", train_sft(context, job.init, blind=True), blind=True)
    yield TrainedModel("SFT", sft_place)
    if job.grpo:
        folder, train = context.workdir / job.grpo.name, partial(grpo.train, context, job.grpo)
        yield TrainedModel("GRPO", run_stage(context, folder, sft_place, train))


def train_sft(context: RunContext, stage: str | SftConfig, blind: bool = False) -> str:
    """The place of a first stage's parameters: `stage` itself where it names a checkpoint, else after training it."""
    if isinstance(stage, str):
        return stage
    start = train_sft(context, stage.init)  # the blind model starts from the same weights and differs by its films
    folder = context.workdir / (f"{stage.name}_blind" if blind else stage.name)
    return run_stage(context, folder, start, partial(sft.train, context, stage, blind=blind))


def run_stage(context: RunContext, folder: Path, start: str, train: Callable[..., dict]) -> str:
    """Trains from the parameters at `start` and saves the stage's final ones, unless they are saved already; returns
    their place."""
    params = folder / "params"
    if not is_finished(folder):
        started = time.monotonic()
        final_params = train(folder=folder, initial_params=partial(context.load_params, start))
        checkpoint.save_params(params, final_params, to_dict(context.job.model))
        print(f"{folder.name} took {time.monotonic() - started:.0f} s", flush=True)
    return f"orbax:{params}"


def _print_squash(job: JobConfig) -> None:
    if (notice := squash_notice(job.image)) and multihost.is_primary():
        print(f"note: {notice}", flush=True)


def export(context: RunContext, model: TrainedModel) -> None:
    """The model as a Hugging Face folder, unless it is there already."""
    folder = context.workdir / "hf"
    if not folder.exists():
        job, params = context.job, context.load_params(model.place)
        _print_squash(job)
        export_model(folder, job.model, params, context.data_root / job.tokenizer, job.image)
