"""Questions about films: one, with its text shown as it is sampled, or a batch."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chestx_jax.data.pipeline import encode_prompt
from chestx_jax.eval.answers.parsing import answer_text, reasoning_text
from chestx_jax.inference.answers import Generate, answer_batch, bucket, compile_on_demand
from chestx_jax.inference.loaded_model import LoadedModel
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.tokens.rows import Example, RowsConfig


@dataclass(frozen=True)
class Question:
    """A question about films."""

    text: str
    images: tuple[str, ...] = ()
    reasoning: bool = True  # append the instruction to think first


def encode_question(model: LoadedModel, question: Question) -> Example:
    """The question as the model reads it. Raises UserError for a film that cannot be read."""
    return encode_prompt(model.encoder, question.text, question.images, question.reasoning)


def answer_question(
    model: LoadedModel,
    question: Question,
    sampling: SamplingConfig,
    seed: int,
    write: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """The answer to one question as a JSON record; `write` is called with each piece of its text as it is sampled.

    Raises UserError for a film that cannot be read.
    """
    examples = {0: encode_question(model, question)}
    emit = stream_text(model.encoder.tokenizer, write) if write else None
    return answer_records(model, compile_on_demand(model, 1, sampling, seed, emit), examples, 1)[0]


def answer_records(
    model: LoadedModel, generate_for: Callable[[RowsConfig], Generate], examples: Mapping[int, Example], batch: int
) -> dict[int, dict[str, Any]]:
    """Answers by the numbers of their examples, as JSON records with the tokens per second of the batch (compiling
    is not part of its time)."""
    rows = bucket(examples.values())
    generate = generate_for(rows)
    started = time.monotonic()
    answers = answer_batch(model, generate, examples, rows, batch)
    rate = sum(len(answer.ids) for answer in answers.values()) / (time.monotonic() - started)
    return {
        number: {
            "text": answer.text,
            "reasoning": reasoning_text(answer.text),
            "answer": answer_text(answer.text),
            "tokens": len(answer.ids),
            "finished": answer.finished,
            "probability": answer.probability,
            "ids": answer.ids,
            "tokens_per_second": rate,
        }
        for number, answer in answers.items()
    }


def stream_text(tokenizer: Any, write: Callable[[str], None]) -> Callable:
    """An `emit` of the engine for a single prompt, which writes text as it grows; a character whose bytes are not all
    there yet waits for them."""
    early: dict[int, int] = {}  # ids by their step, where a callback overtook those before it
    ids: list[int] = []
    written = 0

    def emit(step, ids_B, live_B) -> None:
        nonlocal written
        if live_B[0]:
            early[int(step)] = int(ids_B[0])
        while len(ids) in early:
            ids.append(early.pop(len(ids)))
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if not text.endswith("\ufffd"):
            write(text[written:])
            written = len(text)

    return emit
