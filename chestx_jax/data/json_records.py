"""Records of JSON lists and JSONL files as plain values, whatever wrote the file.

A byte-order mark and any line ends are accepted; NaN and infinities, which are no JSON, are null; half of a surrogate
pair, which no text file can hold, is U+FFFD. A record that names a field twice with two values is `Unreadable`.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from chestx_jax.data.fields import Unreadable
from chestx_jax.errors import UserError

_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # how undecodable bytes are handed on


def read_records(path: str | Path, keep_broken: bool = False) -> Iterator[tuple[int, Any]]:
    """(index, record) of a JSON list or JSONL file; JSONL is read line by line.

    With `keep_broken` a line of JSONL that cannot be parsed (the last one, where its writer was killed) is handed on as
    an `Unreadable`, to be counted as a record; the first line must be JSON.

    Raises UserError for a missing, unreadable or empty file and for text that is not JSON, naming the line.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            start = file.read(4096).lstrip("\ufeff \t\r\n")
            while not start and (more := file.read(4096)):
                start = more.lstrip("\ufeff \t\r\n")
            file.seek(0)
            if not start:
                raise UserError(f"{path} is empty; it should hold a JSON list or one JSON record a line.")
            yield from _json_list(path, file.read()) if start[0] == "[" else _json_lines(path, file, keep_broken)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path of the data source.") from None
    except OSError as problem:
        raise UserError(f"{path} cannot be read ({problem}); it should be a UTF-8 JSON or JSONL file.") from None


def _json_list(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    try:
        records = _parse(text)
    except json.JSONDecodeError as problem:
        raise UserError(
            f"{path}, line {problem.lineno}: not JSON ({problem.msg}); fix or write the file again."
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} {_problem(error)}; it should hold a list of flat records.") from None
    if not records:
        raise UserError(f"{path} holds an empty list; it should hold at least one record.")
    yield from enumerate(records)


def _json_lines(path: Path, lines: Iterable[str], keep_broken: bool) -> Iterator[tuple[int, Any]]:
    index = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip("\ufeff \t\r\n"):
            continue
        try:
            record = _parse(line)
        except json.JSONDecodeError as problem:
            if not (keep_broken and index):
                raise UserError(
                    f"{path}, line {number}: not JSON ({problem.msg}); each line should hold one whole record."
                ) from None
            record = Unreadable("is a line that is not JSON, not an object", "write one whole record a line")
        except (ValueError, RecursionError) as error:
            if not (keep_broken and index):
                raise UserError(f"{path}, line {number} {_problem(error)}; write one flat record.") from None
            record = Unreadable(_problem(error), "write one flat record")
        yield index, record
        index += 1


def _problem(error: ValueError | RecursionError) -> str:
    return "is nested too deeply to be read" if isinstance(error, RecursionError) else f"cannot be read ({error})"


def _parse(text: str) -> Any:
    if _NOT_UTF8.search(text):
        raise ValueError("it is not UTF-8")
    repeated: list[Any] = []  # the objects that name a field twice

    def as_object(pairs: list[tuple[str, Any]]) -> Any:
        record = dict(pairs)
        if len(record) < len(pairs):
            names = {name for name, value in pairs if record[name] is not value and record[name] != value}
            if names:
                record = _Repeated(record)
                record.name = min(names)
                repeated.append(record)
        return record

    value = json.loads(
        text.strip("\ufeff \t\r\n"),
        parse_constant=lambda constant: None,
        parse_float=_finite,
        object_pairs_hook=as_object,
    )
    if "\\ud" in text.lower():
        value = _without_surrogates(value)
    if not repeated:
        return value
    return [_unless_repeated(record) for record in value] if isinstance(value, list) else _unless_repeated(value)


class _Repeated(dict):
    """An object that names one field twice with two values."""

    name = ""


def _unless_repeated(record: Any) -> Any:
    """The record, or what is wrong with it where it or anything in it names a field twice."""
    pending = [record]
    while pending:
        value = pending.pop()
        if isinstance(value, _Repeated):
            return Unreadable(f"names {value.name!r} twice with two values", "keep one of them")
        if isinstance(value, dict | list):
            pending += value.values() if isinstance(value, dict) else value
    return record


def _finite(digits: str) -> float | None:
    return value if math.isfinite(value := float(digits)) else None


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        for key in [*value]:
            value[_without_surrogates(key)] = _without_surrogates(value.pop(key))
    return value
