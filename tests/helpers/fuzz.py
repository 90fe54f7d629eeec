"""Mutated inputs, and the count of what became of them: shared by the fuzzes of all entry points.

A fuzz names its kinds of input, each a function from a random generator to one mutated input, and an `attempt` that
gives an input to the entry point and names the outcome ("read", "refused" …). What else it raises is the outcome
`TRACEBACK`, which must never be. `count_outcomes(kinds, attempt, number)` tries and counts; the tests take about 200
inputs, `python -m tests.benchmarks.fuzz_NAME [N]` takes 2,000 and prints the table.
"""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

TRACEBACK = "TRACEBACK"
ODD_VALUES = (
    *(None, True, False, -1, 0, 1, 2, 2**31, 2**63, -(2**63), 10**400, 0.0, -0.5, 1e-300, 1e308, float("nan")),
    *(float("inf"), "", " ", "?", "Error", "0", "-1", "1e400", "nan", "\x00", "\ud800", "\u2028", "\U0001f600"),
    *("é" * 300, "../..", "/", [], [None], [[]], ["a", 1], {}, {"x": 1}, [{}]),
)
ODD_BYTES = (
    b"\0",
    b"\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x80",
    b"\x7f\xff\xff\xff",
    b"?",
    b"-1",
    b"nan",
    b"1e400",
)

Outcomes = Counter[tuple[str, str]]  # how often each kind of input had each outcome


def mutated_bytes(rng: np.random.Generator, content: bytes, most: int = 4) -> bytes:
    """`content` after 1 to `most` changes: bytes replaced, runs removed, repeated, zeroed or inserted, the end cut."""
    for _ in range(rng.integers(1, most + 1)):
        start = int(rng.integers(0, len(content) + 1))
        end = start + int(rng.integers(1, 33))
        odd = ODD_BYTES[rng.integers(len(ODD_BYTES))]
        changes = (
            content[:start] + odd + content[start + len(odd) :],
            content[:start] + rng.bytes(1) + content[start + 1 :],
            content[:start] + content[end:],
            content[:end] + content[start:],
            content[:start] + bytes(len(content[start:end])) + content[end:],
            content[:start] + odd + content[start:],
            content[:start],
        )
        content = changes[rng.integers(len(changes))]
    return content


def mutated_tree(rng: np.random.Generator, tree: Any, odd: Collection[Any] = ODD_VALUES) -> Any:
    """A copy of nested dicts and lists after one to three changes: a value odd, removed, copied from another place, or
    a key misspelt."""
    tree = copy.deepcopy(tree)
    odd = list(odd)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(tree))
        if not places:
            return odd[rng.integers(len(odd))]
        parent, key = places[rng.integers(len(places))]
        other, other_key = places[rng.integers(len(places))]
        change = rng.integers(5)
        if change == 0:
            del parent[key]
        elif change == 1:
            parent[key] = copy.deepcopy(other[other_key])
        elif change == 2 and isinstance(parent, dict):
            parent[key[:-1] if isinstance(key, str) else key] = parent.pop(key)
        else:
            parent[key] = odd[rng.integers(len(odd))]
    return tree


def _places(tree: Any):
    """Every (container, key) of a tree."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def count_outcomes(
    kinds: Mapping[str, Callable[[np.random.Generator], Any]], attempt: Callable[[Any], str], number: int, seed: int = 0
) -> Outcomes:
    """Outcomes of `number` inputs, the kinds in turn; input i is made from the seed and i alone, so that one can be
    made again. A traceback's outcome names the exception and the input's number."""
    outcomes: Outcomes = Counter()
    for i in range(number):
        kind = list(kinds)[i % len(kinds)]
        made = kinds[kind](np.random.default_rng((seed, i)))
        try:
            outcome = attempt(made)
        except Exception as error:
            outcome = f"{TRACEBACK} {type(error).__name__} (input {i})"
        outcomes[kind, outcome] += 1
    return outcomes


def table(outcomes: Outcomes) -> str:
    """Kinds down, outcomes across, with totals."""
    kinds = list(dict.fromkeys(kind for kind, _ in outcomes))
    names = sorted({outcome for _, outcome in outcomes})
    rows = [[kind, *(str(outcomes[kind, name]) for name in names)] for kind in kinds]
    totals = ["all", *(str(sum(outcomes[kind, name] for kind in kinds)) for name in names)]
    cells = [["input", *names], *rows, totals]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names) + 1)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
    return "\n".join(lines)
