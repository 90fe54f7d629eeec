"""A named model evaluated on records: a checkpoint on the devices of all processes, or an endpoint."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import jax

from chestx_jax import multihost
from chestx_jax.buckets import BucketUse
from chestx_jax.data.bad_records import BadRecords
from chestx_jax.data.schema import Sample
from chestx_jax.endpoint.client import parse_model
from chestx_jax.errors import UserError
from chestx_jax.eval.config import EvalConfig
from chestx_jax.eval.evaluate import evaluate, read_eval_samples
from chestx_jax.eval.predictions.records import Prediction
from chestx_jax.eval.predictions.resume import Predict
from chestx_jax.inference import remote
from chestx_jax.inference.answers import greedy, make_sampler
from chestx_jax.inference.loaded_model import load_model
from chestx_jax.inference.multihost import coordinate, participate
from chestx_jax.inference.predict import predict
from chestx_jax.lexicon import load
from chestx_jax.programs.batches import uneven_batch
from chestx_jax.sharding import MeshConfig, make_mesh


def evaluate_model(config: EvalConfig, place: str, out: str | Path) -> int:
    """Evaluates the model at `place` into the folder `out`; returns the exit status, 3 where samples were left out."""
    primary = multihost.is_primary()
    log: Callable[[str], None] = print if primary else lambda text: None
    samples = read_eval_samples(config, log)
    if place.startswith("openai:"):
        if not primary:
            return 0  # one process is enough for an endpoint
        options = {"workers": config.workers, "timeout": config.timeout, "attempts": config.attempts}
        endpoint = parse_model(place, Path(out, "cache"), **options)
        predict_samples: Predict = partial(remote.predict, endpoint, log=log, length=config.length, blind=config.blind)
    else:
        predict_samples = checkpoint_predict(config, place, log)
        if not primary:
            participate(samples, predict_samples)
            return 0
        predict_samples = coordinate(samples, predict_samples)
    name = model_name(place) + (" without films" if config.blind else "")
    document = evaluate(config, samples, name, predict_samples, out, load(), print)
    return 0 if document["run"]["complete"] else 3


def checkpoint_predict(config: EvalConfig, place: str, log: Callable[[str], None]) -> Predict:
    """Predictions of a checkpoint: its weights are split over a process's devices, samples over the processes."""
    processes = jax.process_count()
    for sentence in uneven_batch("config.batch", config.batch, processes):
        raise UserError(f"{sentence}, one share a process.")
    mesh = make_mesh(MeshConfig(data=processes, fsdp=1, tensor=-1))
    model = load_model(place, mesh, config.dtype, config.tokenizer, config.image_size, config.blind)
    sampler = make_sampler(model, config.batch, greedy(config.length))

    def predict_samples(samples: Sequence[Sample]) -> Iterator[Prediction]:
        use = BucketUse()
        yield from predict(model, samples, sampler, BadRecords(1.0, len(samples), log), use=use)
        if use.runs:
            log(str(use))

    return predict_samples


def model_name(place: str) -> str:
    """What tables call a model: an endpoint's model, a hub name, else the run and stage that its folder is in."""
    kind, _, rest = place.partition(":")
    if kind == "openai":
        return rest.partition("@")[0]
    return "/".join([part for part in Path(rest).parts if part not in ("params", "/", "..", ".")][-2:])
