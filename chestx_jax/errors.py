"""The exception that users read, and what it suggests: what is wrong, where, and how to fix it, in one sentence."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
    """Bad input. Commands print its message alone and exit with status 2; nothing half-written is left behind."""


def one_line(error: BaseException, longest: int = 200) -> str:
    """What an exception says, else its kind, on one line of at most `longest` characters, for use in a sentence."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of `names` most similar to `name` (case ignored), or None where none is close."""
    by_lower_case = {candidate.lower(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=cutoff)
    return by_lower_case[matches[0]] if matches else None


def choose(options: Mapping[str, T], name: str, what: str) -> T:
    """`options[name]`, or a UserError that lists the names and suggests the nearest; `what` says what is chosen."""
    if name in options:
        return options[name]
    near = nearest(name, options)
    hint = f"did you mean {near!r}? " if near else ""
    raise UserError(f"There is no {what} {name!r}: {hint}choose one of {', '.join(map(repr, sorted(options)))}.")
