"""Matched groups: as many studies as a question has options share its options, and each option is right for one.

So nothing in the question's text says which option is right: not how often a label is right, not which labels go
together, not their order. Whatever is learned of options alone answers at chance.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chestx_jax.labels import LABELS
from chestx_jax.lexicon.tables import Relations
from chestx_jax.mining.reference import Reference

OPTIONS = 4
_PATIENCE = 20  # groups that begin with a gold and fail, in a row, until it is given up
_LOOKED_AT = 100  # studies of a gold that are tried for a group


@dataclass(frozen=True)
class Candidate:
    """A study, and the labels that would be its right option."""

    reference: Reference
    gold: tuple[str, ...]


def limited(candidates: Sequence[Candidate], per_label: int) -> list[Candidate]:
    """The candidates in order, less those all of whose labels have `per_label` candidates already (0: no limit)."""
    counts: dict[str, int] = defaultdict(int)
    kept = []
    for candidate in candidates:
        if not per_label or any(counts[label] < per_label for label in candidate.gold):
            kept.append(candidate)
            for label in candidate.gold:
                counts[label] += 1
    return kept


def matched_groups(
    tables: Relations, candidates: Sequence[Candidate], rng: np.random.Generator
) -> list[list[Candidate]]:
    """Groups of four candidates with golds of one size, each gold wrong for the three other studies. No candidate is in
    two groups, no study twice in one. What fits into no group is left out."""
    pools: dict[tuple[str, ...], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        pools[tuple(sorted(candidate.gold))].append(candidate)
    groups = []
    failures: Counter[tuple[str, ...]] = Counter()  # in a row
    while pools := {key: pool for key, pool in pools.items() if pool and failures[key] < _PATIENCE}:  # type: ignore[assignment]
        sizes = {key: len(pool) ** 0.5 for key, pool in sorted(pools.items())}  # frequent golds first, rare ones too
        keys, weights = list(sizes), np.asarray(list(sizes.values()))
        order = [keys[i] for i in rng.choice(len(keys), len(keys), replace=False, p=weights / weights.sum())]
        group = [pools[order[0]][-1]]
        for key in order[1:]:
            fitting = _first_fitting(tables, pools[key], group) if len(key) == len(order[0]) else None
            group += [fitting] if fitting else []
            if len(group) == OPTIONS:
                break
        complete = len(group) == OPTIONS
        failures[order[0]] = 0 if complete else failures[order[0]] + 1
        for candidate in group if complete else group[:1]:
            pools[tuple(sorted(candidate.gold))].remove(candidate)
        groups += [group] if complete else []
    return groups


def _first_fitting(tables: Relations, pool: Sequence[Candidate], group: Sequence[Candidate]) -> Candidate | None:
    """The last candidate of a pool that can join a group, if any of its last ones can."""
    taken = {candidate.reference.study.id for candidate in group}
    for candidate in pool[: -_LOOKED_AT - 1 : -1]:
        if candidate.reference.study.id not in taken and all(
            is_wrong(tables, other, candidate.gold) and is_wrong(tables, candidate, other.gold) for other in group
        ):
            return candidate
    return None


def is_wrong(tables: Relations, candidate: Candidate, labels: Sequence[str]) -> bool:
    """Whether an option of these labels is surely wrong for a study: it knows them all, lacks one at least, and none
    that it lacks is a kind of what it shows, or the other way round."""
    statuses = candidate.reference.statuses
    shown = {LABELS.index(label) for label in (*candidate.gold, *candidate.reference.shown)}
    lacking = [LABELS.index(label) for label in labels if statuses[label].value == "absent"]
    known = all(statuses[label].value != "uncertain" for label in labels)
    related = any(tables.is_a[one, other] or tables.is_a[other, one] for one in lacking for other in shown)
    return known and bool(lacking) and not related
