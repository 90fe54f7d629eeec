"""A held model as the evaluators' predict function: greedy answers in batches, few shapes, each compiled once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from chestx_jax import multihost, sharding
from chestx_jax.data.schema import Sample
from chestx_jax.endpoint.client import parse_model
from chestx_jax.errors import UserError
from chestx_jax.eval.config import EvalConfig
from chestx_jax.eval.evaluate import evaluate, read_eval_samples
from chestx_jax.eval.predictions.records import Prediction, from_sample
from chestx_jax.eval.predictions.resume import Predict
from chestx_jax.inference import remote
from chestx_jax.inference.generate import Question, bucket, prepare
from chestx_jax.inference.loaded_model import LoadedModel, load_model
from chestx_jax.inference.multihost import coordinate, participate
from chestx_jax.lexicon import load
from chestx_jax.multihost import all_gather, all_max, local_row_indices
from chestx_jax.programs.job import Program, generation
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.sharding import MeshConfig, make_mesh
from chestx_jax.tokens.rows import Example, RowsConfig, prompts


def predict(
    held: LoadedModel, config: EvalConfig, samples: Sequence[Sample], say: Callable[[str], None]
) -> Iterator[Prediction]:
    """Greedy answers in order, `config.batch` at a time; a sample whose film cannot be read is said and left out.

    Of several processes each prepares its own rows of a batch, and all of them get every prediction.
    """
    sampling = SamplingConfig(temperature=0.0, top_p=1.0, top_k=0, length=config.length, group=1)
    compiled: dict[RowsConfig, tuple[Program, Callable]] = {}
    own = local_row_indices(
        sharding.batch_shardings(held.mesh, jax.ShapeDtypeStruct((config.batch,), jnp.int32)), config.batch
    )
    for start in range(0, len(samples), config.batch):
        numbers = [start + row for row in own if start + row < len(samples)]
        found = _readable(held, config.blind, {number: samples[number] for number in numbers}, say)
        filler = next(reversed(found.values())) if found else prepare(held, Question(""))
        missing = len(own) - len(found)
        examples, index = [*found.values(), *[filler] * missing], [*found, *[-1] * missing]
        rows = bucket(examples)
        readable, *sizes = all_max((len(found), rows.length, rows.image_slots, rows.patches))
        if not readable:
            continue
        rows = RowsConfig(*sizes)
        if rows not in compiled:
            program = generation(held.config, rows, config.batch, sampling, 0, held.mesh)
            compiled[rows] = program, program.jit()
        yield from _answers(held, *compiled[rows], rows, samples, examples, index)


def _answers(
    held: LoadedModel,
    program: Program,
    run: Callable,
    rows: RowsConfig,
    samples: Sequence[Sample],
    examples: Sequence[Example],
    index: Sequence[int],
) -> Iterator[Prediction]:
    """The predictions of one batch, of which this process has prepared `examples`, the samples numbered `index`."""
    step = jnp.int32(0)
    placed = sharding.put(prompts(examples, rows, index, held.spec), program.in_shardings[1])
    step = jax.device_put(step, sharding.replicated(held.mesh))
    asked, rollout = all_gather((placed.index, run(held.params, placed, held.vocabulary, step)))
    for row in np.argsort(asked, kind="stable"):
        if asked[row] < 0:
            continue
        length = int(rollout.length[row])
        text = held.tokenizer.decode(rollout.ids[row, :length].tolist(), skip_special_tokens=True)
        pieces = [held.tokenizer.decode([token]) for token in rollout.ids[row, :length].tolist()]
        sure = answer_probability(pieces, rollout.logprobs[row, :length])
        found = from_sample(samples[asked[row]], text, truncated=not bool(rollout.finished[row]), tokens=length)
        yield replace(found, probability=sure)


def answer_probability(pieces: Sequence[str], logprobs_L: np.ndarray) -> float | None:
    """Probability the model gave to the tokens between the last answer tags; None where there is no such block."""
    text = "".join(pieces)
    end = text.rfind("</answer>")
    begin = text.rfind("<answer>", 0, max(end, 0)) + len("<answer>")
    if end < 0 or begin < len("<answer>") or not text[begin:end].strip():
        return None
    starts = np.cumsum([0, *(len(piece) for piece in pieces)])
    inside = [i for i, piece in enumerate(pieces) if starts[i + 1] > begin and starts[i] < end and piece.strip()]
    return float(np.exp(np.sum(logprobs_L[inside], dtype=np.float64)))


def _readable(
    held: LoadedModel, blind: bool, samples: Mapping[int, Sample], say: Callable[[str], None]
) -> dict[int, Example]:
    """What can be asked, by number."""
    examples = {}
    for number, sample in samples.items():
        try:
            example = prepare(held, Question(sample.question, sample.images))
        except UserError as error:
            say(f"{sample.id}: left out ({error})")
            continue
        if blind:
            example = replace(example, images=tuple((np.zeros_like(values), at) for values, at in example.images))
        examples[number] = example
    return examples


def run(config: EvalConfig, model: str, out: Path) -> int:
    """Evaluates `model` into `out`: an endpoint, or a checkpoint held on the devices of all processes."""
    first = multihost.is_primary()
    say: Callable[[str], None] = print if first else lambda text: None
    samples = read_eval_samples(config, say)
    if model.startswith("openai:"):
        if not first:
            return 0  # one process is enough to ask an endpoint
        settings = {name: getattr(config, name) for name in ("workers", "timeout", "attempts")}
        endpoint = parse_model(model, out / "cache", **settings)
        ask: Predict = partial(remote.predict, endpoint, say=say, length=config.length, blind=config.blind)
    else:
        # Weights lie over the devices of a process; questions are shared out among processes.
        mesh = make_mesh(MeshConfig(data=jax.process_count(), fsdp=1, tensor=-1))
        dtype = config.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
        own = partial(
            predict, load_model(model, mesh, dtype, config.tokenizer or None, config.image_size), config, say=say
        )
        if not first:
            participate(samples, own)
            return 0
        ask = coordinate(samples, own)
    name = name_of(model) + (" without films" if config.blind else "")
    document = evaluate(config, samples, name, ask, out, load(), print)
    return 0 if document["run"]["complete"] else 3


def name_of(model: str) -> str:
    """What tables call a model: an endpoint's model, a hub name, else the run and stage that its folder lies in."""
    kind, _, place = model.partition(":")
    if kind == "openai":
        return place.partition("@")[0]
    return "/".join([part for part in Path(place).parts if part not in ("params", "/", "..", ".")][-2:])
