"""The test after each stage of a job: predictions of its records, scores and page of all models tested so far."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from chestx_jax import multihost
from chestx_jax.buckets import BucketUse
from chestx_jax.data.bad_records import BadRecords
from chestx_jax.data.schema import Sample
from chestx_jax.eval.evaluate import first_per_task
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.report.tables import closing_tables
from chestx_jax.eval.results import training_curves, write_results
from chestx_jax.eval.statistics.blind_baselines import fitted_baselines
from chestx_jax.eval.statistics.comparison import compare_models
from chestx_jax.inference.answers import greedy
from chestx_jax.inference.multihost import predict_on_all_processes
from chestx_jax.inference.predict import predict
from chestx_jax.recipes import EvaluationConfig, SftConfig
from chestx_jax.training.run_context import RunContext


class TrainedModel(NamedTuple):
    """A model of the job: its name in tables and where its parameters are, as in config.init."""

    name: str
    place: str
    blind: bool = False  # trained and tested on films of one tone


def predict_test(context: RunContext, evaluation: EvaluationConfig, model: TrainedModel) -> list[Prediction]:
    """Greedy answers to the test records, kept in `test/NAME.jsonl` as they come; only what it lacks is answered."""
    started = time.monotonic()
    samples = first_per_task(context.samples(evaluation.source), evaluation.limit)
    sampler = context.sampler("test", greedy(evaluation.length), evaluation.batch, evaluation.rollout_tensor)
    use = BucketUse()

    def predict_samples(missing: Sequence[Sample]) -> Iterator[Prediction]:
        if not missing:
            return iter(())
        loaded = context.loaded_model(sampler.weights(context.load_params(model.place)), model.blind)
        bad = BadRecords(context.job.max_bad, len(samples))
        threads = context.job.reading.threads
        return predict(loaded, missing, sampler, bad, evaluation.rows, evaluation.lengths, use, threads)

    path = context.workdir / "test" / f"{model.name}.jsonl"
    predictions = predict_on_all_processes(path, samples, predict_samples, print)
    print(f"test of {model.name}: {len(predictions)} records in {time.monotonic() - started:.0f} s", flush=True)
    if multihost.is_primary() and use.runs:
        print(use, flush=True)
    return predictions


def refresh_results(context: RunContext, predictions: Mapping[str, Sequence[Prediction]]) -> str:
    """Writes `scores.json` and `report.html` with the models tested so far; returns the closing tables, on the primary
    process alone."""
    job = context.job
    if not multihost.is_primary() or job.evaluation is None:
        return ""
    sources = job.init.sources if isinstance(job.init, SftConfig) else ()  # of a checkpoint none are known
    train = [sample for source in sources for sample in context.samples(source)]
    samples = first_per_task(context.samples(job.evaluation.source), job.evaluation.limit)
    comparison = compare_models(predictions, context.lexicon, fitted_baselines(train, samples))
    planned = ("SFT", "GRPO") if job.grpo else ("SFT",)
    write_results(
        context.workdir,
        comparison,
        title=f"Test of {context.workdir.resolve().name}",
        asked=len(samples),
        awaited=[name for name in planned if name not in predictions],
        curves=training_curves(context.workdir),
    )
    return closing_tables(comparison)
