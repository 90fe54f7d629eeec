"""Predictions: one model's answer to one sample, with all that scoring and showing it needs.

On disk a prediction is one JSON line in the release's variant A (`question, answer, pred, reason_steps,
original_report`, `image_path`, `item_id`) plus our own fields, so that the release's rules read our files and ours its.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chestx_jax.data.fields import (
    FieldError,
    as_record,
    bare_answer,
    id_of,
    patient_of,
    reports_of,
    steps_of,
    strings,
    text_of,
)
from chestx_jax.data.json_records import read_records
from chestx_jax.data.questions import question_key
from chestx_jax.data.schema import Sample, distinct_ids, gold_answer, question_of, task_of
from chestx_jax.errors import UserError
from chestx_jax.files import append_json_lines, drop_torn_line

CENTRES = ("rsna", "siim", "openi", "mimic", "chexpert")


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
      patient: whom the films are of; empty if unknown.
      views: of the films; empty if unknown.
      probability: the answer's probability under the model, None if unknown.
      model: name of the model; empty if unknown.
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
    patient: str = ""
    views: tuple[str, ...] = ()
    tokens: int | None = None
    probability: float | None = None
    model: str = ""


def from_sample(sample: Sample, pred: str, **measured: Any) -> Prediction:
    """The prediction `pred` for a `data.schema.Sample`; `measured`: its `truncated`, `tokens`, `probability`
    and `model`."""
    shared = ("task", "source", "question", "answer", "reports", "steps", "images", "drawn", "patient", "views")
    fields = {name: getattr(sample, name) for name in shared}
    return Prediction(sample_id=sample.id, pred=pred, **fields, **measured)


def independent_group(prediction: Prediction) -> Hashable:
    """What predictions that are not independent share: the patient, or where that is not known the films."""
    return prediction.patient or prediction.images or (prediction.sample_id,)


def keys(predictions: Iterable[Prediction]) -> list[tuple[str, str, int]]:
    """A key of each prediction's sample, the same for all models: id, question (however it is spelled, see
    `question_key`), and the number of earlier predictions with both, since a file may repeat a record."""
    counts: Counter[tuple[str, str]] = Counter()
    numbered = []
    for prediction in predictions:
        key = prediction.sample_id, question_key(prediction.question)
        numbered.append((*key, counts[key]))
        counts[key] += 1
    return numbered


def to_record(prediction: Prediction) -> dict[str, Any]:
    """Variant A of the release with our fields beside it; the gold answer in tags, as the release's rule expects."""
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
        "dataset_name": prediction.source,
        "truncated": prediction.truncated,
        "drawn": None if prediction.drawn is None else list(prediction.drawn),
        "patient": prediction.patient,
        "views": list(prediction.views),
        "tokens": prediction.tokens,
        "probability": prediction.probability,
        "model": prediction.model,
    }


def from_record(record: Mapping[str, Any], index: int = 0, file: str = "") -> Prediction:
    """Any variant of the release's records as a prediction; missing fields are empty, lists in `pred` are joined.

    Raises:
      FieldError: the first field that cannot be read, named.
    """
    record = as_record(record)
    question = question_of(record)
    answer = text_of(record, "answer")
    drawn, tokens, probability = record.get("drawn"), record.get("tokens"), record.get("probability")
    return Prediction(
        sample_id=id_of(record) or f"{file or 'record'}-{index}",
        task=task_of(record, question),
        source=_source(record, file),
        question=question,
        answer=gold_answer(answer, question) or bare_answer(answer),
        pred=text_of(record, "pred"),
        reports=reports_of(record),
        steps=steps_of(record),
        images=strings(record.get("image_path")),
        truncated=record.get("truncated") is True,
        drawn=None if drawn is None else strings(drawn),
        patient=patient_of(record),
        views=strings(record.get("views")),
        tokens=tokens if isinstance(tokens, int) else None,
        probability=probability if isinstance(probability, float) else None,
        model=model if isinstance(model := record.get("model"), str) else "",
    )


def _source(record: Mapping[str, Any], file: str) -> str:
    """The centre of a record: its `dataset_name` unless that names a kind of task, else one named in id or file."""
    named = record.get("dataset_name")
    if isinstance(named, str) and named and "classification" not in named.lower():
        return named
    return next((centre for centre in CENTRES if centre in f"{record.get('item_id', '')} {file}".lower()), file)


def read_predictions(path: str | Path) -> list[Prediction]:
    """Predictions of one file, ours or the release's.

    Raises:
      UserError: at the first record that cannot be read, naming file, index and field.
    """
    predictions, problems = read_good_predictions(path)
    if problems:
        raise UserError(problems[0])
    return predictions


def raw_records(path: str | Path) -> list[Any]:
    """A file's records as plain JSON values; a line of JSONL that cannot be parsed is an `Unreadable`.

    Raises:
      UserError: the file is missing, empty, not JSON, or nested beyond reading.
    """
    return [record for _, record in read_records(path, keep_broken=True)]


def read_good_predictions(path: str | Path) -> tuple[list[Prediction], list[str]]:
    """The predictions that can be read, and a sentence for each record that cannot. Repeated records get distinct ids,
    as samples do (see `data.reader`)."""
    predictions, problems = [], []
    for index, record in enumerate(raw_records(path)):
        try:
            predictions.append(from_record(record, index, Path(path).stem))
        except FieldError as error:
            problems.append(f"{path}, record {index}, field {error.field}: {error.problem}; {error.fix}.")
    ids = distinct_ids([(prediction.sample_id, prediction.question) for prediction in predictions])
    return [replace(prediction, sample_id=id) for prediction, id in zip(predictions, ids, strict=True)], problems


def append_predictions(path: str | Path, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Writes each prediction to the file as it comes and passes it on; a torn last line is cut off first."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    drop_torn_line(path)
    for prediction in predictions:
        append_json_lines(path, [to_record(prediction)])
        yield prediction
