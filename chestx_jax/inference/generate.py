"""Questions about films to a model at hand: one, shown as it is sampled, or a file of them, in order and resumable."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from chestx_jax import files, sharding
from chestx_jax.data.reader import read_records
from chestx_jax.errors import UserError
from chestx_jax.eval.answers.parsing import answer_text, reasoning_text
from chestx_jax.inference.loaded_model import LoadedModel
from chestx_jax.programs.job import generation
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.tokens.films import load_image
from chestx_jax.tokens.patches import patches
from chestx_jax.tokens.rows import Example, RowsConfig, encode, prompts


@dataclass(frozen=True)
class Question:
    """What is asked about which films."""

    text: str
    images: tuple[str, ...] = ()
    reasoning: bool = True  # append the instruction to think first


def prepare(held: LoadedModel, question: Question) -> Example:
    """The question as the model reads it. Raises UserError for a film that cannot be read."""
    films = [patches(load_image(path), held.spec) for path in question.images]
    merge = held.config.vision.merge_size
    return encode(held.tokenizer, held.special, question.text, films, question.reasoning, None, merge)


def answer(
    held: LoadedModel, examples: Sequence[Example], sampling: SamplingConfig, seed: int, emit: Callable | None = None
) -> list[dict[str, Any]]:
    """What the model says to each: text, reasoning, answer, tokens, finished, and tokens per second of the batch.

    Shapes come in powers of two, so that few programs serve many questions; compiling is not part of the time.
    """
    rows = bucket(examples)
    program = generation(held.config, rows, len(examples), sampling, seed, held.mesh, emit)
    batch = prompts(examples, rows, range(len(examples)), held.spec)
    step = jnp.int32(0)
    arguments = (
        held.params,
        sharding.put(batch, program.in_shardings[1]),
        held.vocabulary,
        jax.device_put(step, sharding.replicated(held.mesh)),
    )
    compiled = program.jit().lower(*arguments).compile()
    begun = time.monotonic()
    rollout = jax.device_get(compiled(*arguments))
    seconds = time.monotonic() - begun
    rate = float(rollout.length.sum()) / seconds
    found = []
    for row in range(len(examples)):
        ids = rollout.ids[row, : rollout.length[row]].tolist()
        text = held.tokenizer.decode(ids, skip_special_tokens=True)
        found.append(
            {
                "text": text,
                "reasoning": reasoning_text(text),
                "answer": answer_text(text),
                "tokens": len(ids),
                "finished": bool(rollout.finished[row]),
                "ids": ids,
                "tokens_per_second": rate,
            }
        )
    return found


def shown(held: LoadedModel, write: Callable[[str], None]) -> Callable:
    """An `emit` for one question that writes text as it grows; letters cut in half wait for their other bytes."""
    early: dict[int, int] = {}  # steps that arrived before their predecessors
    ids: list[int] = []
    length = 0

    def emit(step, column, live) -> None:
        nonlocal length
        if live[0]:
            early[int(step)] = int(column[0])
        while len(ids) in early:
            ids.append(early.pop(len(ids)))
        text = held.tokenizer.decode(ids, skip_special_tokens=True)
        if not text.endswith("\ufffd"):
            write(text[length:])
            length = len(text)

    return emit


def read_questions(path: str | Path, image_root: str | Path | None = None) -> list[Question]:
    """Questions of a JSONL or JSON-list file: `question`, `image_path` (a path or a list) and perhaps `reasoning`.

    Raises UserError naming file, record and field.
    """
    root = Path(image_root) if image_root else Path(path).parent
    found = []
    for number, record in read_records(path):
        if not isinstance(record, dict) or not isinstance(record.get("question"), str):
            raise UserError(f'{path}, record {number}: "question" is missing or no text; write it.')
        images = record.get("image_path") or record.get("images") or ()
        images = (images,) if isinstance(images, str) else tuple(images)
        found.append(
            Question(record["question"], tuple(str(root / image) for image in images), record.get("reasoning", True))
        )
    return found


def answer_file(
    held: LoadedModel, questions: Sequence[Question], out: str | Path, sampling: SamplingConfig, seed: int, batch: int
) -> tuple[int, int]:
    """Append an answer per question to the JSONL `out`, in order, going on after the lines that are there already.

    A film that cannot be read gets a line with its error. Returns how many lines were added and how many failed.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.drop_torn_line(out)
    done = len(files.complete_lines(out))
    failed = 0
    for group in _batches(range(done, len(questions)), batch):
        lines: dict[int, dict[str, Any]] = {}
        examples: dict[int, Example] = {}
        for number in group:
            try:
                examples[number] = prepare(held, questions[number])
            except UserError as error:
                lines[number] = {"error": str(error)}
        if examples:
            rows = list(examples.values())
            rows += [rows[-1]] * (batch - len(rows))  # one program for the last, shorter batch too
            spoken = answer(held, rows, sampling, seed + group[0])
            lines |= dict(zip(examples, spoken, strict=False))
        failed += len(group) - len(examples)
        for number in group:
            asked = {"index": number, "question": questions[number].text, "images": list(questions[number].images)}
            lines[number] = asked | lines[number]
        files.append_json_lines(out, [lines[number] for number in group])
    return len(questions) - done, failed


def bucket(examples: Sequence[Example]) -> RowsConfig:
    """The smallest powers of two that hold every example."""
    largest = max((len(values) for example in examples for values, _ in example.images), default=4)
    return RowsConfig(
        length=_power(max(len(example.ids) for example in examples), 64),
        image_slots=max(1, *(len(example.images) for example in examples)),
        patches=_power(largest, 64),
    )


def _power(size: int, least: int) -> int:
    return max(least, 1 << (size - 1).bit_length())


def _batches(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    numbers = iter(numbers)
    while group := list(islice(numbers, size)):
        yield group
