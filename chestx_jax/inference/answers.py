"""A batch of encoded prompts to answers: static shapes, compiled programs, text and the answer's probability."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from chestx_jax import sharding
from chestx_jax.eval.answers.parsing import without_thoughts
from chestx_jax.inference.loaded_model import LoadedModel
from chestx_jax.multihost import all_gather, local_row_indices
from chestx_jax.programs.generation import generation
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.tokens.chat import opened_text
from chestx_jax.tokens.rows import Example, RowsConfig, prompts
from chestx_jax.tokens.tokenizer import decode_text
from chestx_jax.types import Rollout

Generate = Callable[..., Rollout]  # a jitted generation program: (parameters, prompts, vocabulary, step) → rollout


class Answer(NamedTuple):
    """What a model generated for one prompt."""

    text: str  # with what the prompt has opened of it
    ids: list[int]  # with the end token, where it was sampled
    finished: bool  # False: cut off by the length limit
    probability: float | None  # of the tokens between the answer tags; None without such a block


def greedy(length: int) -> SamplingConfig:
    """The most likely token at every step, at most `length` of them."""
    return SamplingConfig(temperature=0.0, length=length, group=1)


def compile_on_demand(
    model: LoadedModel, batch: int, sampling: SamplingConfig, seed: int = 0, emit: Callable | None = None
) -> Callable[[RowsConfig], Generate]:
    """A function from the shape of a batch's rows to the generation program of that shape, compiled once."""

    @cache
    def compiled(rows: RowsConfig) -> Generate:
        program = generation(model.config, rows, batch, sampling, seed, model.mesh, emit=emit)
        return program.lower().compile()

    return compiled


def bucket(examples: Collection[Example]) -> RowsConfig:
    """The smallest powers of two that hold every example, so that few programs serve many batches."""
    largest = max((len(patches) for example in examples for patches, _ in example.images), default=4)
    return RowsConfig(
        length=_power_of_two(max(len(example.ids) for example in examples), 64),
        image_slots=max(1, *(len(example.images) for example in examples)),
        patches=_power_of_two(largest, 64),
    )


def answer_batch(
    model: LoadedModel, generate: Generate, examples: Mapping[int, Example], rows: RowsConfig, batch: int
) -> dict[int, Answer]:
    """Answers to the examples by their numbers, in order; -1 numbers an example whose answer is left out.

    Of several processes each gives the examples of its own rows of the `batch`, and all of them get every answer.
    Rows without an example repeat the last one.
    """
    by_row = row_sharding(model, batch)
    fillers = len(local_row_indices(by_row, batch)) - len(examples)
    padded = [*examples.values(), *[list(examples.values())[-1]] * fillers]
    local_prompts = prompts(padded, rows, [*examples, *[-1] * fillers], model.encoder.image)
    global_prompts = sharding.put(local_prompts, jax.tree.map(lambda _: by_row, local_prompts))
    step = jax.device_put(jnp.int32(0), sharding.replicated(model.mesh))
    rollout = generate(model.params, global_prompts, model.vocabulary, step)
    tokens, length = global_prompts.tokens.ids, global_prompts.length
    index, ids, length, rollout = all_gather((global_prompts.index, tokens, length, rollout))
    in_order = [row for row in np.argsort(index, kind="stable") if index[row] >= 0]
    return {int(index[row]): _decode(model, ids[row, : length[row]].tolist(), rollout, row) for row in in_order}


def row_sharding(model: LoadedModel, batch: int) -> jax.sharding.Sharding:
    """How the rows of a batch are split over the model's devices."""
    return sharding.batch_shardings(model.mesh, jax.ShapeDtypeStruct((batch,), jnp.int32))


def answer_probability(pieces: Sequence[str], logprobs_L: Float[np.ndarray, " L"]) -> float | None:
    """Probability the model gave to the tokens between the last answer tags outside of the thoughts; None where there
    is no such block."""
    text = without_thoughts("".join(pieces))
    end = text.rfind("</answer>")
    begin = text.rfind("<answer>", 0, max(end, 0)) + len("<answer>")
    if end < 0 or begin < len("<answer>") or not text[begin:end].strip():
        return None
    starts = np.cumsum([0, *(len(piece) for piece in pieces)])
    inside = [i for i, piece in enumerate(pieces) if starts[i + 1] > begin and starts[i] < end and piece.strip()]
    return float(np.exp(np.sum(logprobs_L[inside], dtype=np.float64)))


def _decode(model: LoadedModel, prompt: list[int], rollout: Rollout, row: int) -> Answer:
    tokenizer, length = model.encoder.tokenizer, int(rollout.length[row])
    ids = rollout.ids[row, :length].tolist()
    return Answer(
        text=opened_text(tokenizer, prompt) + decode_text(tokenizer, ids),
        ids=ids,
        finished=bool(rollout.finished[row]),
        probability=answer_probability([tokenizer.decode([id]) for id in ids], rollout.logprobs[row, :length]),
    )


def _power_of_two(size: int, least: int) -> int:
    return max(least, 1 << (size - 1).bit_length())
