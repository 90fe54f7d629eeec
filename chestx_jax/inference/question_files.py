"""Files of questions, answered in order and resumable."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chestx_jax import files
from chestx_jax.data.reader import read_records
from chestx_jax.errors import UserError
from chestx_jax.inference.answers import compile_on_demand
from chestx_jax.inference.generate import Question, answer_records, encode_question
from chestx_jax.inference.loaded_model import LoadedModel
from chestx_jax.rollout.sampling import SamplingConfig
from chestx_jax.tokens.rows import Example


def read_questions(path: str | Path, image_root: str | Path | None = None) -> list[Question]:
    """Questions of a JSONL or JSON-list file: `question`, `image_path` (a path or a list) and perhaps `reasoning`.

    Raises UserError naming file, record and field.
    """
    root = Path(image_root) if image_root else Path(path).parent
    questions = []
    for number, record in read_records(path):
        if not isinstance(record, dict) or not isinstance(record.get("question"), str):
            raise UserError(f'{path}, record {number}: "question" is missing or no text; write it.')
        images = record.get("image_path") or record.get("images") or ()
        images = (images,) if isinstance(images, str) else tuple(images)
        paths = tuple(str(root / image) for image in images)
        questions.append(Question(record["question"], paths, record.get("reasoning", True)))
    return questions


def answer_file(
    model: LoadedModel, questions: Sequence[Question], out: str | Path, sampling: SamplingConfig, seed: int, batch: int
) -> tuple[int, int]:
    """Appends an answer per question to the JSONL `out`, in order, continuing after the lines that are there already.

    A film that cannot be read gets a line with its error. Returns how many lines were added and how many failed.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.drop_torn_line(out)
    done = len(files.complete_lines(out))
    failed = 0
    programs = compile_on_demand(model, batch, sampling, seed)
    for start in range(done, len(questions), batch):
        group = range(start, min(start + batch, len(questions)))
        examples: dict[int, Example] = {}
        records: dict[int, dict[str, Any]] = {}
        for number in group:
            try:
                examples[number] = encode_question(model, questions[number])
            except UserError as error:
                records[number] = {"error": str(error)}
        failed += len(records)
        if examples:
            if sampling.temperature:
                programs = compile_on_demand(model, batch, sampling, seed + start)  # every batch draws anew
            records |= answer_records(model, programs, examples, batch)
        files.append_json_lines(out, [_header(number, questions[number]) | records[number] for number in group])
    return len(questions) - done, failed


def _header(number: int, question: Question) -> dict[str, Any]:
    return {"index": number, "question": question.text, "images": list(question.images)}
