"""Predictions: one model's answer to one sample with everything needed to score and to show it again.

On disk a prediction is one JSON line in the release's variant A (`question, answer, pred, reason_steps,
original_report`, `image_path`, `item_id`) plus our own fields, so the release's rules read our files and ours read theirs.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chestx_jax.errors import UserError
from chestx_jax.eval.answers import bare_answer, options
from chestx_jax.types import TASKS


@dataclass(frozen=True)
class Prediction:
    """One answered sample.

    Attributes:
      sample_id, task, source, question, answer: of the sample; `answer` is bare (`A`, or comma-separated labels).
      pred: the model's text as generated.
      reports, steps: what it is judged against; empty where there is none.
      images: paths of the film(s).
      truncated: the length limit cut the text off. tokens: its length in tokens, None if unknown.
      drawn: the phantom's truth in the surface form of labels and steps; None for real films.
      probability: the answer's probability under the model, None if unknown.
    """

    sample_id: str
    task: str
    source: str
    question: str
    answer: str
    pred: str
    reports: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    truncated: bool = False
    drawn: tuple[str, ...] | None = None
    tokens: int | None = None
    probability: float | None = None


def from_sample(sample: Any, pred: str, *, truncated: bool = False, tokens: int | None = None) -> Prediction:
    """The prediction `pred` for a `data.schema.Sample`."""
    return Prediction(
        sample.id, sample.task, sample.source, sample.question, sample.answer, pred, tuple(sample.reports), tuple(sample.steps),
        tuple(sample.images), truncated, sample.drawn, tokens,
    )  # fmt: skip


def to_record(prediction: Prediction) -> dict[str, Any]:
    """Variant A of the release with our fields beside it; the gold answer in its tags, as the release's rule expects."""
    reports = prediction.reports
    named = {"original_report": reports[0] if reports else ""}
    if len(reports) > 1:
        named = {f"original_report_{i}": report for i, report in enumerate(reports, 1)}
    return {
        "question": prediction.question,
        "answer": f"<answer> {prediction.answer} </answer>",
        "pred": prediction.pred,
        "reason_steps": list(prediction.steps),
        **named,
        "image_path": list(prediction.images),
        "item_id": prediction.sample_id,
        "task": prediction.task,
        "source": prediction.source,
        "truncated": prediction.truncated,
        "drawn": None if prediction.drawn is None else list(prediction.drawn),
        "tokens": prediction.tokens,
        "probability": prediction.probability,
    }


def from_record(record: dict[str, Any], index: int = 0, source: str = "") -> Prediction:
    """Any variant of the release's records as a prediction; fields it lacks are empty, none is required but `question`.

    Raises:
      ValueError: the field that cannot be read, named.
    """
    question = text_of(record.get("question", ""), "question")
    drawn = record.get("drawn")
    return Prediction(
        sample_id=str(record.get("item_id") or record.get("id") or index),
        task=record["task"] if record.get("task") in TASKS else task_of(question, len(strings(record.get("image_path")))),
        source=str(record.get("source") or source),
        question=question,
        answer=bare_answer(text_of(record.get("answer", ""), "answer")),
        pred=text_of(record.get("pred", ""), "pred"),
        reports=_reports(record),
        steps=_steps(record.get("reason_steps")),
        images=strings(record.get("image_path")),
        truncated=bool(record.get("truncated", False)),
        drawn=None if drawn is None else strings(drawn),
        tokens=record.get("tokens") if isinstance(record.get("tokens"), int) else None,
        probability=record.get("probability") if isinstance(record.get("probability"), float) else None,
    )


def task_of(question: str, images: int = 1) -> str:
    """Task family by the question's form: temporal by its wording, open by missing options, the rest by their options."""
    lowered = question.lower()
    if "reference image" in lowered or "progression" in lowered:
        return "temporal"
    choices = options(question)
    if not choices:
        return "anomaly"
    if {text.strip().lower() for text in choices.values()} == {"yes", "no"}:
        return "binary"
    if {text.strip().lower() for text in choices.values()} <= {"stable", "worsening", "improving"} and images > 1:
        return "temporal"
    several = "findings" in lowered or sum("," in text for text in choices.values()) * 2 > len(choices)
    return "multiple" if several else "single"


def text_of(value: Any, field: str) -> str:
    """A text field; a list of texts (some of the release's files have it) is joined, None is empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    raise ValueError(f"field {field!r} is {type(value).__name__}, not text")


def strings(value: Any) -> tuple[str, ...]:
    """A string or a list of strings as a tuple of the strings it holds; anything else is left out."""
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    if isinstance(value, (list, tuple)):
        return tuple(item for item in value if isinstance(item, str) and item.strip())
    return ()


def _steps(value: Any) -> tuple[str, ...]:
    return strings(value.get("reason_steps") if isinstance(value, dict) else value)


def _reports(record: dict[str, Any]) -> tuple[str, ...]:
    for names in (("original_report_1", "original_report_2"), ("original_report1", "original_report2"), ("original_report",)):
        found = tuple(text for name in names for text in strings(record.get(name)))
        if found:
            return found
    return ()


def read_records(path: str | Path) -> list[Any]:
    """Raw records of a JSON list or of JSON lines, unjudged.

    Raises:
      UserError: the file is missing, unreadable, cut off, or holds no list; the line is named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a JSON list or JSON lines in UTF-8") from error
    if not text.strip():
        raise UserError(f"{path}: is empty; give a JSON list or JSON lines of records")
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{path}: is not complete JSON ({error}); write the file again or cut it at its last record") from error
    return [_line(line, path, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def read_predictions(path: str | Path) -> list[Prediction]:
    """Predictions of one file, ours or the release's.

    Raises:
      UserError: naming file, index and field.
    """
    return [_prediction(record, path, index) for index, record in enumerate(read_records(path))]


def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Writes JSON lines beside `path` first and moves them there when complete: no half-written file is left."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(line(prediction) for prediction in predictions)
    os.replace(partial, path)


def line(prediction: Prediction) -> str:
    """One prediction as a JSON line."""
    return json.dumps(to_record(prediction), ensure_ascii=False) + "\n"


def append_predictions(path: str | Path, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Writes each prediction as it comes, flushed, and passes it on; a cut-off last line is mended away first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_cut_line(path)
    with path.open("a", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(line(prediction))
            file.flush()
            yield prediction


def _drop_cut_line(path: Path) -> None:
    """A process killed while writing leaves a line without its end; it is cut so that the next one starts clean."""
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(data.rfind(b"\n") + 1)


def _line(text: str, path: str | Path, number: int) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}, line {number}: is not complete JSON ({error}); remove or mend the line") from error


def _prediction(record: Any, path: str | Path, index: int) -> Prediction:
    if not isinstance(record, dict):
        raise UserError(f"{path}, record {index}: is {type(record).__name__}, not an object; give one object per record")
    try:
        return from_record(record, index, Path(path).stem)
    except ValueError as error:
        raise UserError(f"{path}, record {index}: {error}; mend the record or leave it out") from error
