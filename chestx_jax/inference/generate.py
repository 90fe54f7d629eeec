"""Questions about films: one, with its text shown as it is sampled, or a file of them, answered in order and
resumable."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chestx_jax import files
from chestx_jax.data.bad_records import attempt
from chestx_jax.data.fields import FieldError, as_record, text_of
from chestx_jax.data.image_roots import ImageRoots, parse_image_root
from chestx_jax.data.json_records import read_records
from chestx_jax.data.pipeline import encode_prompt
from chestx_jax.data.questions import without_instruction
from chestx_jax.errors import UserError
from chestx_jax.eval.answers.parsing import answer_text, reasoning_text
from chestx_jax.inference.answers import answer_window, bucket, make_sampler, window_places
from chestx_jax.inference.loaded_model import LoadedModel
from chestx_jax.programs.generation import WINDOW
from chestx_jax.rollout.loop import Sampler
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.tokens.chat import opened_text
from chestx_jax.tokens.reading import map_ahead, thread_count
from chestx_jax.tokens.rows import Example
from chestx_jax.tokens.tokenizer import decode_text


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
    example = encode_question(model, question)
    sampler = make_sampler(model, 1, sampling, seed)
    emit = None
    if write:
        write(opened_text(model.encoder.tokenizer, example.ids.tolist()))
        emit = stream_text(model.encoder.tokenizer, write)
    (record,) = (record for _, record in answer_records(model, sampler, [example], [0], emit))
    return record


def answer_records(
    model: LoadedModel,
    sampler: Sampler,
    examples: Sequence[Example | None],
    numbers: Sequence[int],
    emit: Callable[[Sequence[int]], None] | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Answers by the numbers of their examples, in order, as JSON records. `emit` is given the first row's ids as they
    are sampled."""
    rows = bucket([example for example in examples if example is not None])
    for number, answer in answer_window(model, sampler, examples, numbers, rows, emit):
        reasoned = {"reasoning": reasoning_text(answer.text), "answer": answer_text(answer.text)}
        measured = {"tokens": len(answer.ids), "finished": answer.finished, "probability": answer.probability}
        yield (
            number,
            {
                "text": answer.text,
                **reasoned,
                **measured,
                "ids": answer.ids,
                "tokens_per_second": answer.tokens_per_second,
            },
        )


def stream_text(tokenizer: Any, write: Callable[[str], None]) -> Callable[[Sequence[int]], None]:
    """A function that is given the ids sampled so far and writes what is new of their text; a character whose bytes are
    not all there yet waits for them."""
    written = 0

    def emit(ids: Sequence[int]) -> None:
        nonlocal written
        text = decode_text(tokenizer, ids)
        if not text.endswith("\ufffd"):
            write(text[written:])
            written = len(text)

    return emit


def read_questions(path: str | Path, image_root: str | Path | None = None) -> list[Question]:
    """Questions of a JSONL or JSON-list file: `question`, `image_path` (a path or a list) and perhaps `reasoning`.

    Raises UserError naming file, record and field.
    """
    roots = parse_image_root(image_root, Path(path).parent)
    questions = []
    for number, record in read_records(path):
        try:
            questions.append(_question(record, roots))
        except FieldError as error:
            raise UserError(f"{path}: record {number}, field {error.field}: {error.problem}; {error.fix}.") from None
    return questions


def _question(record: Any, roots: ImageRoots) -> Question:
    record = as_record(record)
    text = without_instruction(text_of(record, "question", strict=True))
    images = record.get("image_path") or record.get("images") or ()
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, Sequence) or not all(isinstance(image, str) for image in images):
        raise FieldError("image_path", "is no path and no list of paths", "write the paths of the films as strings")
    reasoning = record.get("reasoning", True)
    if not isinstance(reasoning, bool):
        raise FieldError("reasoning", f"holds {type(reasoning).__name__}", "write true or false")
    return Question(text, tuple(str(roots.path(image)) for image in images), reasoning)


def answer_file(
    model: LoadedModel, questions: Sequence[Question], out: str | Path, sampling: SamplingConfig, seed: int, batch: int
) -> tuple[int, int]:
    """Appends an answer per question to the JSONL `out`, in order, continuing after the lines that are there already.

    A film that cannot be read gets a line with its error. Returns how many lines were added and how many failed.

    Raises UserError where a line answers another question than that of its number: the questions have changed.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.drop_torn_line(out)
    done = _answered(out, questions)
    failed, window = 0, WINDOW * batch
    sampler, places = make_sampler(model, batch, sampling, seed), window_places(model, window)
    encode = lambda number: attempt(lambda: encode_question(model, questions[number]), 0, number, "")  # noqa: E731
    windows = [range(start, min(start + window, len(questions))) for start in range(done, len(questions), window)]
    for here, attempts in zip(windows, map_ahead(encode, windows, thread_count()), strict=True):
        errors = {record.number: record.problem for record in attempts if record.problem}
        encoded = {record.number: record.value for record in attempts if not record.problem}
        failed += len(errors)
        numbers = [here.start + place for place in places]
        examples = [encoded.get(number) for number in numbers]
        answers = answer_records(model, sampler, examples, numbers) if encoded else iter(())
        for number in here:
            record = {"error": errors[number]} if number in errors else next(answers)[1]
            files.append_json_lines(out, [_header(number, questions[number]) | record])
    return len(questions) - done, failed


def _answered(out: Path, questions: Sequence[Question]) -> int:
    """How many questions the file answers. Raises UserError where they are not the first of `questions`."""
    lines = files.complete_lines(out)
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        header = _header(number, questions[number]) if number < len(questions) else None
        if header is None or not isinstance(record, dict) or any(record.get(key) != header[key] for key in header):
            answered = "a question that is not there" if header is None else "another question or other films"
            raise UserError(
                f"{out}, line {number + 1}, answers {answered}: the questions have changed since; give another --out, "
                "or the questions as they were."
            )
    return len(lines)


def _header(number: int, question: Question) -> dict[str, Any]:
    return {"index": number, "question": question.text, "images": list(question.images)}
