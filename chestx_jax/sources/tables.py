"""CSV tables, plain or gzipped, read by the names of their columns."""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from chestx_jax.errors import UserError, nearest, one_line
from chestx_jax.sources.problems import Problems

_LONGEST_CELL = 2**27  # the module's own limit is below the longest run-length masks and reports


@dataclass(frozen=True)
class Row:
    """One row: where it stands, for messages, and its cells without outer blanks by the names asked for."""

    where: str
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]


def read_table(
    path: Path,
    columns: Sequence[str],
    problems: Problems,
    optional: Sequence[str] = (),
    aliases: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Row]:
    """The rows of a table, counted as a spreadsheet does (the header is row 1). Columns are found by name, whatever
    their order, case, spaces and punctuation; `aliases` are further names of a column. A missing optional column has
    empty cells; a row too short for the columns is noted and passed over, an empty one passed over.

    Raises UserError for a file that cannot be read or is cut short, and for one without a column.
    """
    csv.field_size_limit(_LONGEST_CELL)
    number = 1
    try:
        with _open(path) as file:
            reader = csv.reader(file)
            header = next(reader, [])
            places = _places(path, header, columns, optional, aliases or {})
            needed = max((places[column] for column in columns), default=0)
            for number, cells in enumerate(reader, start=2):
                if not any(cells):
                    continue
                where = f"{path.name} row {number}"
                if len(cells) <= needed:
                    problems.note("the row ends before its last column", where, "it is passed over")
                    continue
                named = {
                    name: cells[place].strip() if place is not None and place < len(cells) else ""
                    for name, place in places.items()
                }
                yield Row(where, named)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is cut short or damaged behind row {number}: download it again.") from error
    except (OSError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read as a table near row {number} ({one_line(error)}): replace it."
        ) from error


def read_header(path: Path) -> list[str]:
    """The names in the first row. Raises UserError for a file that cannot be read."""
    try:
        with _open(path) as file:
            return [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({one_line(error)}): replace it.") from error


def read_names(path: Path) -> list[str]:
    """The lines of a list of file names, without blanks and empty lines."""
    try:
        with _open(path) as file:
            return [line.strip() for line in file if line.strip()]
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}): replace it.") from error


def number(row: Row, column: str, problems: Problems) -> float | None:
    """A cell's finite number; None where it is blank, and, with a note, where it is none."""
    text = row[column]
    if text.lower() in ("", "nan", "none"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if abs(value) < float("inf"):
        return value
    problems.note(f"{column} is no number", f"{row.where} ({text[:20]!r})", "the cell counts as blank")
    return None


def _open(path: Path) -> IO[str]:
    """Text of UTF-8 with or without a mark at its beginning; what is none becomes a replacement sign."""
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    opener = gzip.open if gzipped else open
    return opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="")  # type: ignore[return-value]


def _places(
    path: Path,
    header: Sequence[str],
    columns: Sequence[str],
    optional: Sequence[str],
    aliases: Mapping[str, Sequence[str]],
) -> dict[str, int]:
    """The place of each column; those of optional columns may be missing (they then lie behind every row)."""
    by_key = {_key(name): place for place, name in reversed(list(enumerate(header)))}
    places = {}
    for column in (*columns, *optional):
        keys = [_key(name) for name in (column, *aliases.get(column, ())) if _key(name) in by_key]
        if keys:
            places[column] = by_key[keys[0]]
        elif column in optional:
            places[column] = 2**31
        else:
            near = nearest(column, [name for name in header if name])
            hint = f"it has {near!r}" if near else f"it has {', '.join(header)[:80]!r}"
            raise UserError(f"{path} has no column {column!r} in row 1 ({hint}): give the set's own table.")
    return places


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
