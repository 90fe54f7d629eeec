"""How long a collective takes on the interconnect of a slice.

The model (as in "How to Scale Your Model", jax-ml.github.io/scaling-book, "Sharded matrices"): a collective over
chips that differ along some of the torus's dimensions uses the links of those dimensions at once, both ways where the
dimension closes to a ring and one way where it is a line. An all-gather or reduce-scatter moves its whole array less
the chip's own share through them; an all-reduce is one of each. Latency is left out. Chips that a switch joins have one
link each, to all others. A group over several slices or hosts moves what each of them lacks over the network, over the
shares of all its chips at once, while its links pass on what has arrived: the slower of both counts.
"""

import ast
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chestx_jax.planning.cost.chips import Chip
from chestx_jax.planning.hlo.collectives import Collective


@dataclass(frozen=True)
class Placement:
    """Where the devices of a mesh are, in the mesh's order: their coordinates in a torus of `shape` (empty: a switch),
    and the number of the slice or host that each belongs to."""

    chip: Chip
    shape: tuple[int, ...]
    coordinates: tuple[tuple[int, ...], ...]
    slices: tuple[int, ...]


def collective_seconds(collective: Collective, placement: Placement) -> tuple[float, bool]:
    """Time of one run, and whether it crosses between slices."""
    chip = placement.chip
    if collective.kind == "collective-permute":
        moves = [(a, b) for a, b in permutation(collective.groups) if a != b]
        if not moves:
            return 0.0, False
        if any(placement.slices[a] != placement.slices[b] for a, b in moves):
            return collective.size / chip.dcn_bandwidth, True
        return collective.size * max(_hops(placement, a, b) for a, b in moves) / chip.link_bandwidth, False
    group = replica_group(collective.groups, len(placement.coordinates))
    if len(group) == 1:
        return 0.0, False
    size = collective.size * (2.0 if collective.kind == "all-reduce" else 1.0)
    hosts = Counter(placement.slices[i] for i in group)
    here = [i for i in group if placement.slices[i] == placement.slices[group[0]]]
    near = size * (len(group) - 1) / len(group) / group_bandwidth(placement, here) if len(here) > 1 else 0.0
    far = size * (len(hosts) - 1) / len(hosts) / (min(hosts.values()) * chip.dcn_bandwidth)
    return max(near, far), len(hosts) > 1


def group_bandwidth(placement: Placement, group: Sequence[int]) -> float:
    """Bytes/s that flow into one chip from the others of its group."""
    chip, total = placement.chip, 0.0
    for axis, length in enumerate(placement.shape):
        extent = len({placement.coordinates[i][axis] for i in group})
        if extent > 1:
            ring = extent == length and _is_ring(chip, length)
            total += chip.link_bandwidth * (2 if ring else 1)
    return total or chip.link_bandwidth


def replica_group(groups: str, count: int) -> tuple[int, ...]:
    """The devices of the first group of a `replica_groups` attribute over `count` devices, in any of its notations."""
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


def permutation(pairs: str) -> list[tuple[int, int]]:
    """Source and target of every transfer of a collective-permute, from its `source_target_pairs`."""
    return [tuple(pair) for pair in ast.literal_eval(pairs.replace("{", "[").replace("}", "]"))]


def row_major(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Coordinates of a torus in row-major order, for devices that do not report theirs."""
    return tuple(itertools.product(*(range(length) for length in shape)))


def _is_ring(chip: Chip, length: int) -> bool:
    return chip.ring_size > 0 and length % chip.ring_size == 0


def _hops(placement: Placement, first: int, second: int) -> int:
    """Links on the shortest way between two chips."""
    hops = 0
    ends = placement.coordinates[first], placement.coordinates[second]
    for a, b, length in zip(*ends, placement.shape, strict=True):
        straight = abs(a - b)
        hops += min(straight, length - straight) if _is_ring(placement.chip, length) else straight
    return max(hops, 1)
