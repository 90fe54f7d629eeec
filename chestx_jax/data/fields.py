"""The fields of a record of the release, in every spelling they come in: read here for samples and predictions alike.

With `strict` a field must be as a data set needs it; without, as for stored predictions, what can be read is taken.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ANSWER_BLOCK = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])|\n+")
_REPORTS = (
    ("original_report_1", "original_report_2"),
    ("original_report1", "original_report2"),
    ("original_report",),
)


class FieldError(Exception):
    """A field of one record is missing or malformed. The reader turns it into a UserError that names file and index."""

    def __init__(self, field: str, problem: str, fix: str):
        super().__init__(problem)
        self.field, self.problem, self.fix = field, problem, fix


@dataclass(frozen=True)
class Unreadable:
    """What stands in the place of a record that its file does not hold whole: what is wrong, and how to fix it."""

    problem: str
    fix: str


def as_record(value: Any) -> Mapping[str, Any]:
    """The JSON object that a record is. Raises FieldError for any other value."""
    if isinstance(value, Unreadable):
        raise FieldError("(whole record)", value.problem, value.fix)
    if not isinstance(value, Mapping):
        raise FieldError("(whole record)", "is not a JSON object", "write each record as {...}")
    return value


def text_of(record: Mapping[str, Any], field: str, strict: bool = False) -> str:
    """A text field. Where not strict, a list of texts (some of the release's files have it) is joined, a missing field
    is empty."""
    value = record.get(field)
    if value is None:
        if strict:
            raise FieldError(field, "is missing", "add it to the record")
        return ""
    if isinstance(value, str):
        return value
    if not strict and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    raise FieldError(field, f"holds {type(value).__name__} instead of text", "write it as a string")


def id_of(record: Mapping[str, Any]) -> str:
    """The record's `item_id` as text; empty where it has none. Raises FieldError for one that is no text or number."""
    value = record.get("item_id")
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise FieldError("item_id", f"holds {type(value).__name__} instead of text", "write it as a string")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def patient_of(record: Mapping[str, Any]) -> str:
    """Whom a record's films are of, as text; empty where it does not say."""
    value = record.get("patient")
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def strings(value: Any) -> tuple[str, ...]:
    """A string or a list of strings as a tuple of the strings it holds; anything else is left out."""
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    if isinstance(value, (list, tuple)):
        return tuple(item for item in value if isinstance(item, str) and item.strip())
    return ()


def bare_answer(answer: str) -> str:
    """A gold answer without its `<answer>` tags."""
    blocks = ANSWER_BLOCK.findall(answer)
    return (blocks[-1] if blocks else answer).strip()


def reports_of(record: Mapping[str, Any], strict: bool = False) -> tuple[str, ...]:
    """The reports of a record: none, one, or the reference film's and the new film's."""
    for fields in _REPORTS:
        values = [record[field] for field in fields if record.get(field)]
        if strict and not all(isinstance(value, str) for value in values):
            raise FieldError(fields[0], "is not text", "write the report as a string")
        if strict and values and len(values) != len(fields):
            raise FieldError(fields[-1], "is missing beside its pair", "a temporal record needs both reports")
        reports = tuple(values) if strict else tuple(text for value in values for text in strings(value))
        if reports:
            return reports
    return ()


def steps_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Reference reasoning: `reason_steps` (list, text, JSON text or {"reason_steps": …}), else the field `process`."""
    for field in ("reason_steps", "process"):
        try:
            steps = _steps(record.get(field), field)
        except RecursionError:
            raise FieldError(field, "is nested too deeply to be read", "write a list of sentences") from None
        if steps:
            return steps
    return ()


def _steps(value: Any, field: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return _steps(value.get("reason_steps", value.get("process")), field)
    if isinstance(value, str):
        unfenced = re.sub(r"\A\s*```(?:json)?|```\s*\Z", "", value).strip()
        if unfenced[:1] in ("{", "["):
            try:
                return _steps(json.loads(unfenced), field)
            except json.JSONDecodeError:
                return _sentences(unfenced)
        return _sentences(unfenced)
    if isinstance(value, Sequence) and all(isinstance(step, str) for step in value):
        return tuple(text for step in value if (text := _without_tags(step)))
    raise FieldError(field, f"holds {type(value).__name__} where reasoning is expected", "write a list of sentences")


def _sentences(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in _SENTENCE_END.split(_without_tags(text)) if part.strip())


def _without_tags(text: str) -> str:
    return re.sub(r"</?think>|<answer>.*", "", text, flags=re.DOTALL).strip()
