"""The main job: prepare the data, run the stages in order, test after each, export. Run again, it goes on."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from chestx_jax import checkpoint, files, multihost
from chestx_jax.config import to_dict
from chestx_jax.data.mixture import SourceConfig
from chestx_jax.data.pipeline import BadRecords
from chestx_jax.data.reader import read_samples
from chestx_jax.data.schema import Sample
from chestx_jax.errors import UserError
from chestx_jax.eval.evaluate import first_per_task
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.report.tables import closing_tables
from chestx_jax.eval.results import training_curves, write_results
from chestx_jax.eval.statistics.blind_baselines import fitted_baselines
from chestx_jax.eval.statistics.comparison import compare_models
from chestx_jax.export import export_model
from chestx_jax.inference.multihost import predict_on_all_processes
from chestx_jax.inference.places import find_checkpoint, load_params
from chestx_jax.inference.predict import predict
from chestx_jax.phantom.dataset import write_phantom
from chestx_jax.programs.job import initial
from chestx_jax.recipes import EvaluationConfig, GrpoConfig, JobConfig, SftConfig
from chestx_jax.tokens.chat import INSTRUCTION, SYSTEM, target_text
from chestx_jax.tokens.tokenizer import train_tokenizer
from chestx_jax.training import grpo, sft
from chestx_jax.training.run_context import RunContext, make_context


def run(job: JobConfig, workdir: Path) -> None:
    """Runs whatever of the job is not done yet under `workdir`.

    Leaves the data and tokenizer (phantom jobs), a folder per stage with checkpoints, metrics and final parameters, a
    file per test, `report.html`, `scores.json`, and `hf/`, the last model as a Hugging Face folder.
    """
    started = time.monotonic()
    workdir.mkdir(parents=True, exist_ok=True)
    if multihost.is_primary():
        same_configuration(job, workdir)
        prepare(job, workdir)
    multihost.barrier("prepared")
    same_configuration(job, workdir)
    context = make_context(job, workdir)
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


def same_configuration(job: JobConfig, workdir: Path) -> None:
    """A workdir belongs to one configuration; raises UserError naming the first field that differs."""
    path, now = workdir / "config.json", _flat(to_dict(job))
    if path.exists():
        before = _flat(files.read_json(path, "use another workdir, or remove the file to begin this run anew"))
        differ = [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
        if differ:
            raise UserError(
                f"{workdir} holds a run in which config.{differ[0]} was {before.get(differ[0])!r}, now it is "
                f"{now.get(differ[0])!r}: use another workdir, or the old value to go on"
            )
    else:
        files.write_text(path, json.dumps(to_dict(job), indent=2) + "\n")  # an infinite bound stays one


def prepare(job: JobConfig, workdir: Path) -> None:
    """Draws the phantom and trains its tokenizer where the job has one and they are not there yet."""
    root = Path(job.data_root) if job.data_root else workdir / "data"
    if job.phantom is None:
        return
    if not root.exists():
        write_phantom(root, job.phantom)
    if not (root / job.tokenizer).exists():
        with files.replacing_folder(root / job.tokenizer) as folder:
            train_tokenizer(phantom_texts(root), folder, job.vocabulary)


def phantom_texts(root: Path) -> Iterator[str]:
    """Everything a model will read or write on the phantom's training records, as often as it will."""
    for path in sorted((*root.glob("train*.jsonl"), *root.glob("base*.jsonl"))):
        for sample in read_samples(path)[::8]:  # plenty for a small vocabulary
            yield f"system\n{SYSTEM}"
            yield f"user\n{sample.question}\n{INSTRUCTION}"
            yield f"assistant\n{target_text(sample.steps, sample.answer, True)}"


class TrainedModel(NamedTuple):
    """A model of the job: its name in tables and where its parameters are, as in config.init."""

    name: str
    place: str
    blind: bool = False  # trained and tested on zeros in place of films


def trained_models(context: RunContext) -> Iterator[TrainedModel]:
    """The models to test, each trained when it is asked for; the last is the job's result."""
    job = context.job
    sft_place = train_sft(context, job.init)
    if job.evaluation and job.evaluation.blind and isinstance(job.init, SftConfig):
        yield TrainedModel("blind", train_sft(context, job.init, blind=True), blind=True)
    yield TrainedModel("SFT", sft_place)
    if job.grpo:
        yield TrainedModel("GRPO", train_grpo(context, job.grpo, sft_place))


def train_sft(context: RunContext, stage: str | SftConfig, blind: bool = False) -> str:
    """The place of a first stage's parameters: `stage` itself where it names a checkpoint, else after training it."""
    if isinstance(stage, str):
        return stage
    start = train_sft(context, stage.init)  # the blind model starts from the same weights and differs by its films
    folder = context.workdir / (f"{stage.name}_blind" if blind else stage.name)
    return run_stage(
        context, folder, lambda: sft.train(context, stage, folder, lambda: load_weights(context, start), blind)
    )


def train_grpo(context: RunContext, stage: GrpoConfig, start: str) -> str:
    """The place of the policy's parameters after GRPO from the parameters at `start`."""
    folder = context.workdir / stage.name
    return run_stage(context, folder, lambda: grpo.train(context, stage, folder, lambda: load_weights(context, start)))


def run_stage(context: RunContext, folder: Path, train: Callable[[], dict]) -> str:
    """Trains and saves a stage's final parameters unless they are saved already; returns their place."""
    params = folder / "params"
    if not params.exists():
        started = time.monotonic()
        checkpoint.save_params(params, train(), to_dict(context.job.model))
        print(f"{folder.name} took {time.monotonic() - started:.0f} s", flush=True)
    return f"orbax:{params}"


def load_weights(context: RunContext, place: str) -> Any:
    """Parameters from "random", "orbax:DIR" or "hf:DIR", sharded over the mesh."""
    if place == "random":
        return initial(context.job, seed_of(context.job), context.mesh).jit()()
    advice = f"config.init is {place!r}: give random, orbax:DIR, hf:DIR, or the configuration of a first stage"
    return load_params(find_checkpoint(place, advice), context.job.model, context.mesh)


def seed_of(job: JobConfig) -> int:
    """The seed of random weights: that of the stage trained first."""
    stage: str | SftConfig = job.init
    seed = 0
    while isinstance(stage, SftConfig):
        seed, stage = stage.seed, stage.init
    return seed


def predict_test(context: RunContext, evaluation: EvaluationConfig, model: TrainedModel) -> list[Prediction]:
    """Greedy answers to the test records, kept in `test/NAME.jsonl` as they come; only what it lacks is answered."""
    started = time.monotonic()
    samples = first_per_task(context.samples(evaluation.source), evaluation.limit)
    generate = context.functions["test/generate"]

    def predict_samples(missing: Sequence[Sample]) -> Iterator[Prediction]:
        if not missing:
            return iter(())
        loaded = context.loaded_model(load_weights(context, model.place), model.blind)
        bad = BadRecords(context.job.max_bad)
        return predict(loaded, missing, lambda rows: generate, evaluation.batch, bad, evaluation.rows)

    path = context.workdir / "test" / f"{model.name}.jsonl"
    predictions = predict_on_all_processes(path, samples, predict_samples, print)
    print(f"test of {model.name}: {len(predictions)} records in {time.monotonic() - started:.0f} s", flush=True)
    return predictions


def refresh_results(context: RunContext, predictions: Mapping[str, Sequence[Prediction]]) -> str:
    """Writes `scores.json` and `report.html` with the models tested so far; returns the closing tables, on the primary
    process alone."""
    job = context.job
    if not multihost.is_primary() or job.evaluation is None:
        return ""
    train = [sample for source in training_sources(job) for sample in context.samples(source)]
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


def training_sources(job: JobConfig) -> tuple[SourceConfig, ...]:
    """The training data of the first stage; nothing where it is a checkpoint."""
    return job.init.sources if isinstance(job.init, SftConfig) else ()


def export(context: RunContext, model: TrainedModel) -> None:
    """The model as a Hugging Face folder, unless it is there already."""
    folder = context.workdir / "hf"
    if not folder.exists():
        job = context.job
        params = load_weights(context, model.place)
        export_model(folder, job.model, params, context.root / job.tokenizer, job.image)


def _flat(tree, prefix: str = "") -> dict[str, object]:
    """Nested dicts and lists as one dict of dotted names."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        return {prefix: tree}
    return {k: v for name, value in items for k, v in _flat(value, f"{prefix}.{name}" if prefix else str(name)).items()}
