"""A window of encoded prompts to answers: static shapes, compiled programs, text and the answer's probability."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from chestx_jax import sharding
from chestx_jax.buckets import FLOOR, LengthsConfig
from chestx_jax.eval.answers.parsing import without_thoughts
from chestx_jax.inference.loaded_model import LoadedModel
from chestx_jax.multihost import all_gather, all_max, local_row_indices
from chestx_jax.programs.generation import WINDOW, generation, sampler
from chestx_jax.rollout.loop import Sampler, sample_completions
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.tokens.chat import opened_text
from chestx_jax.tokens.rows import Example, RowsConfig, bucket_that_holds, prompts
from chestx_jax.tokens.tokenizer import decode_text
from chestx_jax.types import Rollout


class Answer(NamedTuple):
    """What a model generated for one prompt."""

    text: str  # with what the prompt has opened of it
    ids: list[int]  # with the end token, where it was sampled
    finished: bool  # False: cut off by the length limit
    probability: float | None  # of the tokens between the answer tags; None without such a block
    tokens_per_second: float  # of all prompts answered at a time: the median over every few tokens so far


def greedy(length: int) -> SamplingConfig:
    """The most likely token at every step, at most `length` of them."""
    return SamplingConfig(temperature=0.0, length=length, group=1)


def make_sampler(model: LoadedModel, batch: int, sampling: SamplingConfig, seed: int = 0) -> Sampler:
    """What answers with the model, `batch` prompts at a time. Its programs are compiled as prompts need them."""
    image, rows, count = model.encoder.image, RowsConfig(), WINDOW * batch
    programs = generation(model.config, image, rows, count, sampling, seed, model.mesh, slots=batch)
    functions = {name: program.jit() for name, program in programs.items()}
    return sampler(model.config, sampling, model.mesh, functions, slots=batch)


def bucket(
    examples: Collection[Example], limits: RowsConfig | None = None, lengths: LengthsConfig | None = None
) -> RowsConfig:
    """The bucket that holds the examples of all processes, each of which must call it: of the `limits`, as in training,
    or, where there are none, of whatever is needed, the patches of a film being a power of two."""
    tokens, image_slots, patches = all_max(
        (
            max(len(example.ids) for example in examples),
            max(len(example.images) for example in examples),
            max((len(patches) for example in examples for patches, _ in example.images), default=1),
        )
    )
    limits = limits or RowsConfig(_power_of_two(tokens), max(image_slots, 1), _power_of_two(patches))
    return bucket_that_holds(tokens, image_slots, limits, lengths or LengthsConfig())


def window_places(model: LoadedModel, size: int) -> list[int]:
    """For each of this process's rows of a window of `size` prompts, the prompt's place in the window: the devices take
    turns, so that each gets as many as the others."""
    by_row = row_sharding(model, size)
    shards = size // by_row.shard_shape((size,))[0]
    places = np.arange(size).reshape(-1, shards).T.ravel()
    return places[local_row_indices(by_row, size)].tolist()


def answer_window(
    model: LoadedModel,
    sampler: Sampler,
    examples: Sequence[Example | None],
    numbers: Sequence[int],
    rows: RowsConfig,
    emit: Callable[[Sequence[int]], None] | None = None,
) -> Iterator[tuple[int, Answer]]:
    """Answers to this process's rows of a window by the numbers of their examples (None: there is none), in order, each
    as soon as those before it are there. Of several processes all get every answer. Draws belong to the numbers.

    `emit` is called with the first row's ids every few tokens.
    """
    filler = next(example for example in examples if example is not None)
    index = [-1 if example is None else number for number, example in zip(numbers, examples, strict=True)]
    local_prompts = prompts([example or filler for example in examples], rows, index, model.encoder.image)
    by_row = row_sharding(model, len(examples) * jax.process_count())
    global_prompts = sharding.put(local_prompts, jax.tree.map(lambda _: by_row, local_prompts))
    tokens, length, index = all_gather((global_prompts.tokens.ids, global_prompts.length, global_prompts.index))
    awaited = deque(row for row in np.argsort(index, kind="stable").tolist() if index[row] >= 0)
    ended: set[int] = set()
    rates, sampled, since = [], 0, time.monotonic()
    for schedule, new in sample_completions(sampler, model.params, global_prompts, model.vocabulary, step=0):
        rollout, now = schedule.rollout, time.monotonic()
        total = int(rollout.length.sum())
        rates.append((total - sampled) / (now - since))
        sampled, since = total, now
        if emit:
            emit(rollout.ids[0, : rollout.length[0]].tolist())
        ended.update(new)
        while awaited and awaited[0] in ended:
            row = awaited.popleft()
            prompt = tokens[row, : length[row]].tolist()
            yield int(index[row]), _decode(model, prompt, rollout, row, statistics.median(rates))


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


def _decode(model: LoadedModel, prompt: list[int], rollout: Rollout, row: int, rate: float) -> Answer:
    tokenizer, length = model.encoder.tokenizer, int(rollout.length[row])
    ids = rollout.ids[row, :length].tolist()
    return Answer(
        text=opened_text(tokenizer, prompt) + decode_text(tokenizer, ids),
        ids=ids,
        finished=bool(rollout.finished[row]),
        probability=answer_probability([tokenizer.decode([id]) for id in ids], rollout.logprobs[row, :length]),
        tokens_per_second=rate,
    )


def _power_of_two(size: int) -> int:
    """The smallest that is not below `size` and `FLOOR`."""
    return max(FLOOR, 1 << (size - 1).bit_length())
