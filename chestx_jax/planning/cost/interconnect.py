"""How long a collective takes on the links of a slice: who talks to whom, where they sit, what their links carry.

The model (as in "How to Scale Your Model", jax-ml.github.io/scaling-book, "Sharded matrices"): a collective over
chips that differ along some of the torus's dimensions uses the links of those dimensions at once, both ways where the
dimension closes to a ring and one way where it is a line. An all-gather or reduce-scatter moves its whole array less
the own share through them; an all-reduce is one of each. Latency is left out.
"""

import ast
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chestx_jax.planning.cost.chips import Chip
from chestx_jax.planning.hlo.schedule import Collective


@dataclass(frozen=True)
class Slice:
    """Where each device sits: `coordinates[i]` in the torus and `slices[i]`, the number of its slice, in the order of
    the mesh."""

    chip: Chip
    shape: tuple[int, ...]
    coordinates: tuple[tuple[int, ...], ...]
    slices: tuple[int, ...]


def members(groups: str, count: int) -> tuple[int, ...]:
    """The devices of the first group of a `replica_groups` attribute in any of its three spellings."""
    mesh = re.match(r"mesh\[(.*?)\]\s*(?:.*?)\{(.*?)\}", groups)
    if mesh:
        names, sizes = zip(*re.findall(r"'(\w+)'=(\d+)", mesh.group(1)), strict=True)
        chosen = re.findall(r"'(\w+)'", mesh.group(2))
        order = np.arange(count).reshape([int(size) for size in sizes])
        axes = [i for i, name in enumerate(names) if name in chosen]
        rest = [i for i in range(len(names)) if i not in axes]
        grouped = np.transpose(order, rest + axes).reshape(-1, math.prod(order.shape[i] for i in axes))
        return tuple(grouped[0].tolist())
    tiled = re.match(r"\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", groups)
    if tiled:
        dims = [int(size) for size in tiled.group(3).split(",")]
        order = np.arange(math.prod(dims)).reshape(dims)
        if tiled.group(4):
            order = np.transpose(order, [int(axis) for axis in tiled.group(4).split(",")])
        return tuple(order.reshape(int(tiled.group(1)), int(tiled.group(2)))[0].tolist())
    listed = re.match(r"\{+([\d,]+)\}", groups)
    return tuple(int(number) for number in listed.group(1).split(",")) if listed else tuple(range(count))


def pairs(groups: str) -> list[tuple[int, int]]:
    """Source and target of every transfer of a collective-permute."""
    return [tuple(pair) for pair in ast.literal_eval(re.sub(r"[{}]", lambda b: "[]"[b.group() == "}"], groups))]


def seconds(collective: Collective, place: Slice) -> tuple[float, bool]:
    """Time of one run, and whether it crosses between slices."""
    chip = place.chip
    if collective.kind in ("collective-permute",):
        moved = [(a, b) for a, b in pairs(collective.groups) if a != b]
        if not moved:
            return 0.0, False
        if any(place.slices[a] != place.slices[b] for a, b in moved):
            return collective.size / chip.dcn_rate, True
        return collective.size * max(_hops(place, a, b) for a, b in moved) / chip.link_rate, False
    group = members(collective.groups, len(place.coordinates))
    share = (len(group) - 1) / len(group)
    if share == 0:
        return 0.0, False
    passes = 2.0 if collective.kind == "all-reduce" else 1.0
    if len({place.slices[i] for i in group}) > 1:
        return passes * collective.size * share / chip.dcn_rate, True
    return passes * collective.size * share / rate(place, group), False


def rate(place: Slice, group: Sequence[int]) -> float:
    """Bytes a second that flow into one chip from the others of its group."""
    total = 0.0
    for axis, length in enumerate(place.shape):
        extent = len({place.coordinates[i][axis] for i in group})
        if extent > 1:
            closed = extent == length and _closes(place.chip, length)
            total += place.chip.link_rate * (2 if closed else 1)
    return total or place.chip.link_rate


def _closes(chip: Chip, length: int) -> bool:
    return chip.wraps > 0 and length % chip.wraps == 0


def _hops(place: Slice, one: int, other: int) -> int:
    """Links on the shortest way between two chips."""
    steps = 0
    for a, b, length in zip(place.coordinates[one], place.coordinates[other], place.shape, strict=True):
        straight = abs(a - b)
        steps += min(straight, length - straight) if _closes(place.chip, length) else straight
    return max(steps, 1)


def positions(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Coordinates of a slice in row-major order, where devices do not tell theirs."""
    return tuple(itertools.product(*(range(length) for length in shape)))
