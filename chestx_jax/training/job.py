"""The main job: prepare the data, run the stages in order, test after each, export. Run again, it goes on."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from chestx_jax import checkpoint, files, multihost
from chestx_jax.config import to_dict
from chestx_jax.data.mixture import SourceConfig
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
from chestx_jax.inference.answer import answers
from chestx_jax.inference.multihost import predict_on_all_processes
from chestx_jax.model import hf
from chestx_jax.phantom.dataset import write_phantom
from chestx_jax.programs.job import initial
from chestx_jax.recipes import JobConfig, SftConfig
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
    first = supervised(context, job.init)
    predictions: dict[str, list[Prediction]] = {}
    tables = ""
    if job.evaluation and job.evaluation.blind and isinstance(job.init, SftConfig):
        blind = supervised(context, job.init, blind=True)
        predictions["blind"] = answered_test(context, "blind", blind, blind=True)
        tables = refresh_results(context, predictions)
    if job.evaluation:
        predictions["SFT"] = answered_test(context, "SFT", first)
        tables = refresh_results(context, predictions)
    last = policy(context, first) if job.grpo else first
    if job.evaluation and job.grpo:
        predictions["GRPO"] = answered_test(context, "GRPO", last)
        tables = refresh_results(context, predictions)
    export(context, last)
    if tables:
        print(tables, flush=True)
    print(f"done in {time.monotonic() - started:.0f} s; the model is in {workdir / 'hf'}", flush=True)


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


def supervised(context: RunContext, stage: str | SftConfig, blind: bool = False) -> str:
    """Where the weights of a first stage are: `stage` itself where it names a checkpoint, else after training it."""
    if isinstance(stage, str):
        return stage
    start = supervised(context, stage.init)  # the blind model starts from the same weights: its films alone are zeros
    folder = context.workdir / (f"{stage.name}_blind" if blind else stage.name)
    return trained(context, folder, lambda: sft.train(context, stage, folder, lambda: weights(context, start), blind))


def policy(context: RunContext, start: str) -> str:
    """Where the weights are after GRPO."""
    stage = context.job.grpo
    assert stage is not None
    folder = context.workdir / stage.name
    return trained(context, folder, lambda: grpo.train(context, stage, folder, lambda: weights(context, start)))


def trained(context: RunContext, folder: Path, train: Callable[[], dict]) -> str:
    """Runs a stage unless its final parameters are there; returns where they are."""
    params = folder / "params"
    if not params.exists():
        begun = time.monotonic()
        checkpoint.save_params(params, train(), to_dict(context.job.model))
        print(f"{folder.name} took {time.monotonic() - begun:.0f} s", flush=True)
    return f"orbax:{params}"


def weights(context: RunContext, where: str):
    """Parameters from "random", "orbax:DIR" or "hf:DIR", sharded over the mesh."""
    kind, _, place = where.partition(":")
    if where == "random":
        return initial(context.job, seed_of(context.job), context.mesh).jit()()
    if kind == "orbax":
        return checkpoint.load_params(place, context.job.model, context.mesh)
    if kind == "hf":
        return hf.load(place, context.job.model, context.mesh)
    raise UserError(f"config.init is {where!r}: give random, orbax:DIR, hf:DIR, or the configuration of a first stage")


def seed_of(job: JobConfig) -> int:
    """The seed of random weights: that of the stage trained first."""
    stage: str | SftConfig = job.init
    seed = 0
    while isinstance(stage, SftConfig):
        seed, stage = stage.seed, stage.init
    return seed


def answered_test(context: RunContext, name: str, where: str, blind: bool = False) -> list[Prediction]:
    """The test records answered greedily, written as they come to `test/NAME.jsonl` and never asked twice."""
    config = context.job.evaluation
    assert config is not None
    begun = time.monotonic()
    samples = first_per_task(context.samples(config.source), config.limit)

    def predict(missing: Sequence[Sample]) -> Iterator[Prediction]:
        return answers(context, config, weights(context, where), missing, blind) if missing else iter(())

    found = predict_on_all_processes(context.workdir / "test" / f"{name}.jsonl", samples, predict, print)
    print(f"test of {name}: {len(found)} records in {time.monotonic() - begun:.0f} s", flush=True)
    return found


def training_sources(job: JobConfig) -> tuple[SourceConfig, ...]:
    """What the first stage learns its answers from; nothing where it is a checkpoint."""
    return job.init.sources if isinstance(job.init, SftConfig) else ()


def export(context: RunContext, where: str) -> None:
    """The last model as a Hugging Face folder."""
    folder = context.workdir / "hf"
    if not folder.exists():
        job = context.job
        export_model(folder, job.model, weights(context, where), context.root / job.tokenizer, job.image)


def _flat(tree, prefix: str = "") -> dict[str, object]:
    """Nested dicts and lists as one dict of dotted names."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        return {prefix: tree}
    return {k: v for name, value in items for k, v in _flat(value, f"{prefix}.{name}" if prefix else str(name)).items()}
