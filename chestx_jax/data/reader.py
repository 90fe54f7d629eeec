"""Reads RadR records from disk: JSON lists and JSONL, every variant of the release, images resolved against a root."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from chestx_jax.data.bad_records import too_many
from chestx_jax.data.fields import FieldError
from chestx_jax.data.image_roots import Films, parse_image_root
from chestx_jax.data.json_records import read_records
from chestx_jax.data.schema import Sample, distinct_ids, sample_from_record
from chestx_jax.errors import UserError

LOG = logging.getLogger(__name__)


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
    folder); a path that does not exist is tried by its ends (see `Films`), so that records keep working when the
    collection moves. Of several records with one id and question the second gets the id "ID#2", and so on.
    `require_images=False` takes records without the `image_path` field; `check_images=False` skips the look at the file
    system.

    Raises UserError naming file, record, field and remedy at the first bad record, for a file that is missing,
    unreadable or not JSON, and for one without records.
    """
    samples = []
    for item in _scan(path, image_root, require_images, "all" if check_images else "none"):
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
    """As `read_samples`, but bad records are left out and returned beside the good ones. Raises UserError as
    `read_most` does."""
    items = read_most(path, image_root, bad_share, check_images="all")
    good = [item for item in items if isinstance(item, Sample)]
    return good, [item for item in items if isinstance(item, Problem)]


def read_most(
    path: str | Path, image_root: str | Path | None, max_bad: float, check_images: Literal["all", "some"] = "some"
) -> list[Sample | Problem]:
    """The samples of a file in their places, with a Problem in the place of each bad record; that there are some is
    logged. With `check_images` "some", not every film of a large file is looked for (see `Films`): one that is missing
    is then found so when it is read.

    Raises UserError if more than the share `max_bad` of the records are bad (naming the first), or if the file cannot
    be read.
    """
    items = _scan(path, image_root, check_images=check_images)
    problems = [item for item in items if isinstance(item, Problem)]
    if too_many(len(problems), len(items), max_bad):
        raise UserError(
            f"{path}: {len(problems)} of {len(items)} records are bad, more than the share allowed ({max_bad:g}); "
            f"the first: {problems[0]}"
        )
    if problems:
        LOG.warning("%s: %d of %d records left out; the first: %s", path, len(problems), len(items), problems[0])
    return items


def find_problems(
    path: str | Path,
    image_root: str | Path | None = None,
    *,
    require_images: bool = True,
    check_images: bool = True,
) -> Iterator[Problem]:
    """Every bad record of a file. Raises UserError only if the file itself cannot be read."""
    items = _scan(path, image_root, require_images, "all" if check_images else "none", keep_broken=True)
    return (item for item in items if isinstance(item, Problem))


def _scan(
    path,
    image_root,
    require_images: bool = True,
    check_images: Literal["all", "some", "none"] = "all",
    keep_broken: bool = False,
) -> list[Sample | Problem]:
    path = Path(path)
    records = list(read_records(path, keep_broken))
    samples: dict[int, Sample] = {}
    problems: dict[int, Problem] = {}

    def problem(index: int, error: FieldError) -> Problem:
        record = records[index][1]
        name = record.get("item_id") if isinstance(record, dict) else None
        name = str(name) if isinstance(name, str | int) else ""
        return Problem(str(path), index, name, error.field, error.problem, error.fix)

    for index, record in records:
        try:
            sample = sample_from_record(record, path.stem, require_images=require_images)
            samples[index] = replace(sample, id=sample.id or f"{path.stem}-{index}", origin=f"{path}, record {index}")
        except FieldError as error:
            problems[index] = problem(index, error)
    films = Films(parse_image_root(image_root, path.parent), [s.images for s in samples.values()], check_images)
    ids = distinct_ids([(sample.id, sample.question) for sample in samples.values()])
    for (index, sample), id in zip([*samples.items()], ids, strict=True):
        try:
            samples[index] = replace(sample, id=id, images=tuple(map(films.find, sample.images)))
        except FieldError as error:
            problems[index] = problem(index, error)
    return [problems.get(index) or samples[index] for index, _ in records]
