"""Reads RadR records from disk: JSON lists and JSONL, every variant of the release, images resolved against a root."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chestx_jax.data.fields import FieldError
from chestx_jax.data.image_roots import ImageRoots, parse_image_root
from chestx_jax.data.schema import Sample, sample_from_record
from chestx_jax.errors import UserError


@dataclass(frozen=True)
class Problem:
    """One record that cannot be used: where, which field, what is wrong and how to fix it."""

    path: str
    index: int  # record number from 0; the line number less one in JSONL without blank lines
    id: str  # the record's item_id where it has one
    field: str
    text: str
    fix: str

    def __str__(self) -> str:
        name = f" ({self.id})" if self.id else ""
        return f"{self.path}: record {self.index}{name}, field {self.field}: {self.text}; {self.fix}."


def read_samples(
    path: str | Path,
    image_root: str | Path | None = None,
    *,
    require_images: bool = True,
    check_images: bool = True,
) -> list[Sample]:
    """All samples of a JSON list or JSONL file, in file order.

    Image paths are resolved against `image_root` (a folder or rules, see `data.image_roots`; default: the file's
    folder); a path that does not exist is tried by its tails, so that records keep working when the collection moves.
    `require_images=False` takes records without the `image_path` field; `check_images=False` skips the look at the file
    system.

    Raises UserError naming file, record, field and remedy at the first bad record, for a file that is missing,
    unreadable or not JSON, and for one without records.
    """
    samples = []
    for item in _scan(path, image_root, require_images, check_images):
        if isinstance(item, Problem):
            raise UserError(str(item))
        samples.append(item)
    return samples


def read_good_samples(
    path: str | Path,
    image_root: str | Path | None = None,
    *,
    bad_share: float = 0.01,
) -> tuple[list[Sample], list[Problem]]:
    """As `read_samples`, but bad records are left out and returned beside the good ones.

    Raises UserError if more than `bad_share` of the records are bad (naming the first), or if the file cannot be read.
    """
    items = list(_scan(path, image_root))
    problems = [item for item in items if isinstance(item, Problem)]
    if len(problems) > bad_share * len(items):
        raise UserError(
            f"{path}: {len(problems)} of {len(items)} records are bad, more than the share allowed ({bad_share}); "
            f"the first: {problems[0]}"
        )
    return [item for item in items if isinstance(item, Sample)], problems


def find_problems(
    path: str | Path,
    image_root: str | Path | None = None,
    *,
    require_images: bool = True,
    check_images: bool = True,
) -> Iterator[Problem]:
    """Every bad record of a file, lazily. Raises UserError only if the file itself cannot be read."""
    items = _scan(path, image_root, require_images, check_images, keep_broken=True)
    return (item for item in items if isinstance(item, Problem))


def read_records(path: str | Path, keep_broken: bool = False) -> Iterator[tuple[int, Any]]:
    """(index, record) of a JSON list or JSONL file, as plain JSON values; JSONL is read line by line.

    With `keep_broken` a line of JSONL that is not JSON (the last one, where its writer was killed) is handed on as its
    text, to be counted as a record that cannot be read; the first line must be JSON.

    Raises UserError for a missing, unreadable or empty file and for text that is not JSON, naming the line.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            start = file.read(4096).lstrip()
            file.seek(0)
            if not start:
                raise UserError(f"{path} is empty; it should hold a JSON list or one JSON record a line.")
            yield from _json_list(path, file.read()) if start[0] == "[" else _json_lines(path, file, keep_broken)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path of the data source.") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"{path} cannot be read ({problem}); it should be a UTF-8 JSON or JSONL file.") from None


def _json_list(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    try:
        records = json.loads(text)
    except json.JSONDecodeError as problem:
        raise UserError(
            f"{path}, line {problem.lineno}: not JSON ({problem.msg}); fix or write the file again."
        ) from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be read; it should hold a list of flat records.") from None
    if not records:
        raise UserError(f"{path} holds an empty list; it should hold at least one record.")
    yield from enumerate(records)


def _json_lines(path: Path, lines, keep_broken: bool) -> Iterator[tuple[int, Any]]:
    index = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as problem:
            if keep_broken and index:
                yield index, line
                index += 1
                continue
            raise UserError(
                f"{path}, line {number}: not JSON ({problem.msg}); each line should hold one whole record."
            ) from None
        except RecursionError:
            raise UserError(f"{path}, line {number} is nested too deeply to be read; write one flat record.") from None
        yield index, record
        index += 1


def _scan(
    path, image_root, require_images: bool = True, check_images: bool = True, keep_broken: bool = False
) -> Iterator[Sample | Problem]:
    path = Path(path)
    roots = parse_image_root(image_root, path.parent)
    for index, record in read_records(path, keep_broken):
        try:
            sample = sample_from_record(record, path.stem, require_images=require_images)
            images = tuple(_resolve(image, roots, check_images) for image in sample.images)
            yield replace(sample, images=images, id=sample.id or f"{path.stem}-{index}")
        except FieldError as problem:
            name = str(record.get("item_id", "")) if isinstance(record, dict) else ""
            yield Problem(str(path), index, name, problem.field, problem.problem, problem.fix)


def _resolve(image: str, roots: ImageRoots, check: bool) -> str:
    """The path of an image: where the roots place it, else the longest tail of it that exists in their folder."""
    path = roots.path(image)
    if not check or path.is_file():
        return str(path)
    parts = Path(image).parts
    for start in range(1, len(parts)):
        candidate = roots.folder.joinpath(*parts[start:])
        if candidate.is_file():
            return str(candidate)
    raise FieldError(
        "image_path", f"{image} does not exist (looked for {path})", "set the source's image root, or fix the path"
    )
