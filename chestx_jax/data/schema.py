"""One RadR sample, and how a record of any release variant becomes one (and back).

A record is a JSON object with the release's fields: `question`, `answer`, `image_path` (list), `reason_steps` or
`process`, `original_report` or `original_report_1/_2`, `item_id`, `dataset_name`, and optionally our own `task`,
`drawn`, `patient` and `views`. The variants differ in spelling only (see `data.fields`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from chestx_jax.data.option_lists import Choices, listed_letters
from chestx_jax.data.questions import canonical_question, options, parts, question_key, without_instruction
from chestx_jax.labels import LABELS, TASKS


@dataclass(frozen=True)
class Sample:
    """One question about one study (or a pair of studies), as the rest of the project sees it."""

    id: str
    task: str  # one of labels.TASKS
    question: str  # in the form of `data.questions.canonical_question`; the instruction sentence is never part of it
    answer: str  # bare: "A" for closed tasks, "Edema, Pleural Effusion" for anomaly
    images: tuple[str, ...]  # resolved paths; temporal: reference film first; empty for text-only records
    steps: tuple[str, ...]  # reference reasoning, one step each; () if none
    reports: tuple[str, ...]  # 0, 1 or 2; temporal: the reference film's report, then the new film's
    source: str
    drawn: tuple[str, ...] | None = None  # phantom truth, see `Drawn`; None for real data; no reward may read it
    patient: str = ""  # whom the films are of; "" where that is not known
    views: tuple[str, ...] = ()  # of the films ("PA", "lateral"); () where they are not known
    origin: str = field(default="", compare=False)  # file and number of its record, for messages

    @property
    def name(self) -> str:
        """What messages call it: its id, and where its record stands."""
        return f"{self.id} ({self.origin})" if self.origin else self.id


@dataclass(frozen=True)
class Drawn:
    """One drawn finding, written `Label|side|change`, e.g. "Pleural Effusion|left|" or "Edema|both|worsening".

    `label` is one of labels.LABELS without "No Finding": a film with nothing drawn has an empty list, and every label
    that is neither listed nor an ancestor of a listed one (edema is a lung opacity) is absent. `side` is left, right,
    both or empty (midline, or without a side); `change` is stable, worsening, improving or empty (no earlier film).
    """

    label: str
    side: str = ""
    change: str = ""

    def __str__(self) -> str:
        return f"{self.label}|{self.side}|{self.change}"


def split_drawn(text: str) -> Drawn:
    """The inverse of `str(Drawn(...))`, unchecked; missing trailing parts are empty."""
    return Drawn(*[*text.split("|"), "", ""][:3])


def parse_drawn(text: str) -> Drawn:
    """`split_drawn`, or ValueError for an unknown label or side."""
    drawn = split_drawn(text)
    if drawn.label not in LABELS or drawn.side not in ("", "left", "right", "both"):
        raise ValueError(f"{text!r} is not a drawn finding")
    return drawn


def sample_from_record(record: Any, source: str, *, require_images: bool = True) -> Sample:
    """The sample a record describes, with image paths as written.

    A text-only record has an empty `image_path` list; a record without the field is incomplete, unless
    `require_images` is False (stored predictions). `source` is used where the record has no `dataset_name`.
    Raises FieldError for the first bad field.
    """
    record = as_record(record)
    question = question_of(record, strict=True)
    task = task_of(record, question, strict=True)
    images = _images(record, require_images)
    if task == "temporal" and len(images) == 1:
        raise FieldError("image_path", "has one film for a temporal question", "list the reference film, then the new")
    return Sample(
        id=id_of(record),
        task=task,
        question=question,
        answer=_answer(record, question_of(record), task),
        images=images,
        steps=steps_of(record),
        reports=reports_of(record, strict=True),
        source=str(record.get("dataset_name") or source),
        drawn=_drawn(record),
        patient=patient_of(record),
        views=strings(record.get("views")),
    )


def record_from_sample(sample: Sample) -> dict[str, Any]:
    """The release-form record of a sample.

    Answers are written bare, with the content of the gold option beside it, as the release does. Reading the record
    back gives the same sample (its empty fields included).
    """
    record: dict[str, Any] = {
        "item_id": sample.id,
        "dataset_name": sample.source,
        "task": sample.task,
        "image_path": list(sample.images),
        "question": sample.question,
        "answer": sample.answer,
    }
    choices = options(sample.question)
    if sample.answer in choices:
        record["answer_content"] = choices[sample.answer]
    if sample.steps:
        record["reason_steps"] = list(sample.steps)
    if len(sample.reports) == 1:
        record["original_report"] = sample.reports[0]
    elif len(sample.reports) == 2:
        record["original_report_1"], record["original_report_2"] = sample.reports
    if sample.drawn is not None:
        record["drawn"] = list(sample.drawn)
    if sample.patient:
        record["patient"] = sample.patient
    if sample.views:
        record["views"] = list(sample.views)
    return record


def distinct_ids(keys: Sequence[tuple[str, str]]) -> list[str]:
    """The ids of records by their (id, question), with "#2", "#3" … behind one that came before with its question."""
    keys = [(id, question_key(question)) for id, question in keys]
    taken, given = set(keys), set[tuple[str, str]]()
    ids = []
    for id, question in keys:
        distinct, number = id, 1
        while (distinct, question) in given or (number > 1 and (distinct, question) in taken):
            number += 1
            distinct = f"{id}#{number}"
        given.add((distinct, question))
        ids.append(distinct)
    return ids


def infer_task(question: str) -> str:
    """The task family a question belongs to, read from its wording and options alone."""
    choices = options(question)
    stem = parts(question).stem.lower()
    texts = {text.strip(" .").lower() for text in choices.values()}
    if "progression" in stem or "reference image" in stem or {"stable", "worsening", "improving"} <= texts:
        return "temporal"
    if not choices:
        return "anomaly"
    if texts == {"yes", "no"}:
        return "binary"
    if "which findings" in stem or "findings are" in stem:
        return "multiple"
    return "single"


def task_of(record: Mapping[str, Any], question: str, strict: bool = False) -> str:
    """The task family a record names, else the one its question belongs to. Raises FieldError where strict and the
    name is unknown."""
    task = record.get("task")
    if task in TASKS:
        return task
    if strict and task is not None:
        raise FieldError(
            "task", f"{task!r} is no task family", f"write one of {', '.join(TASKS)}, or leave the field out"
        )
    return infer_task(question)


def question_of(record: Mapping[str, Any], strict: bool = False) -> str:
    """The question of a record without the instruction; where strict in the release's form. Raises FieldError where
    options are announced and cannot be read and, if strict, for a question that is missing or empty."""
    question = without_instruction(text_of(record, "question", strict))
    if parts(question).unreadable:
        raise FieldError(
            "question", "announces options that cannot be read", "write each on a line of its own, as A) text, B) text"
        )
    if strict and not question.strip():
        raise FieldError("question", "is empty", "write the question there")
    if not strict:
        return question
    is_open = record.get("task") == "anomaly"  # what it lists, findings to go through, are no options
    return question.strip() if is_open else canonical_question(question.strip())


def gold_answer(text: str, question: str) -> str | None:
    """A gold answer as it is compared: the labels of an open question, the letters ("A, C") of a closed one from any
    form that lists options ("(A)", "A) Yes", "Yes", "2" of numbered ones); None if it is none of the options."""
    bare, choices = bare_answer(text), options(question)
    if not choices:
        return bare
    letters = listed_letters(bare, Choices.of(question)) or listed_letters(bare, Choices.of(question, small=True))
    return ", ".join(sorted(letters)) if letters and letters <= choices.keys() else None


def _answer(record: Mapping[str, Any], question: str, task: str) -> str:
    value = record.get("answer")
    text = value if isinstance(value, str) else ", ".join(strings(value))
    if not text.strip() or (isinstance(value, Sequence) and not all(isinstance(part, str) for part in value)):
        raise FieldError(
            "answer", "is missing or no text", "write the gold letter, or the label list of an open question"
        )
    if task == "anomaly":  # open, whatever the question lists
        return bare_answer(text)
    answer = gold_answer(text, question)
    if answer is None:
        raise FieldError(
            "answer",
            f"{bare_answer(text)!r} is none of the options {', '.join(options(question))}",
            "write the letter of the gold option",
        )
    return answer


def _images(record: Mapping[str, Any], require_images: bool) -> tuple[str, ...]:
    value = record.get("image_path")
    if value is None and not require_images:
        return ()
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, Sequence) or not all(isinstance(path, str) and path for path in paths):
        raise FieldError("image_path", "is missing or no list of paths", "list the films; [] says a record has none")
    return tuple(paths)


def _drawn(record: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = record.get("drawn")
    if value is None:
        return None
    try:
        return tuple(str(parse_drawn(text)) for text in value)
    except (ValueError, AttributeError, TypeError) as problem:
        raise FieldError("drawn", str(problem), "write each finding as Label|side|change") from None
