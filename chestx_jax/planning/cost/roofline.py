"""How long a compiled program takes by the chip's public figures.

Three bounds of the whole program, each as if the other two were free:

    compute       FLOPs / (peak bf16 FLOP/s)
    memory        HBM bytes / (HBM bytes/s), or host bytes / (host bytes/s) where that is longer
    interconnect  sum of the collectives' times on their links (`interconnect`)

and a prediction, which runs the schedule one instruction after the other: each takes the longest of its FLOPs at
`MATRIX_SHARE` of the peak, its HBM bytes and, on a GPU, the launch of a kernel. An asynchronous collective costs only
what computation does not cover: that of its loop, or of the whole program where it starts outside loops; any other
costs its whole time. Transfers to and from the host's memory follow each other on one link and run beside what the
schedule has between their start and their end; the rest is waited for.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chestx_jax.planning.cost.chips import Chip
from chestx_jax.planning.cost.interconnect import Placement, collective_seconds
from chestx_jax.planning.hlo.schedule import ScheduledOp

# The share of the peak that libtpu's own cost model gives an 8,192³ bf16 product (estimated cycles of that product
# compiled alone, at the clock in `chips`); tests/benchmarks/planning.py prints them. A CPU's FLOP/s are measured ones.
# No compiler says it of GPUs: an assumption, in the range of what is published for large bf16 products of cuBLAS.
MATRIX_SHARE = {
    "TPU v5e": 0.88, "TPU v5p": 0.90, "TPU v6e": 0.70, "CPU": 1.0,
    "NVIDIA A100": 0.80, "NVIDIA H100": 0.70, "NVIDIA H200": 0.70,
}  # fmt: skip
KERNEL_SHARE = 0.5  # of a matrix product's speed that a fused attention kernel reaches: softmax runs on vector units
EXPOSED, WAITING, ALLOCATING = "collectives not covered", "host transfers not covered", "memory from the system"
LAUNCHING = "kernel launches"


@dataclass(frozen=True)
class Cost:
    """Totals of one run on one device. Sizes in bytes; `compute` to `predicted` in seconds."""

    flops: float
    hbm: float
    host: float
    ici: float  # of collectives within a slice, the larger side of each
    dcn: float  # and between slices
    collectives: tuple[tuple[str, float], ...]  # bytes by kind
    compute: float
    memory: float
    interconnect: float
    exposed: float  # interconnect time that no computation covers
    predicted: float
    breakdown: tuple[tuple[str, float], ...]  # of the predicted seconds by purpose

    @property
    def bound(self) -> str:
        """Which of compute, memory and interconnect takes longest."""
        times = {"compute": self.compute, "memory": self.memory, "interconnect": self.interconnect}
        return max(times, key=lambda name: times[name])


def cost(schedule: Sequence[ScheduledOp], placement: Placement, allocated: float = 0.0) -> Cost:
    """The cost of a program whose run takes `allocated` bytes beside its arguments."""
    chip = placement.chip
    busy: dict[str, float] = defaultdict(float)  # seconds by loop
    breakdown: dict[str, float] = defaultdict(float)
    durations = []
    for op in schedule:
        if op.collective is not None:
            continue
        seconds, purpose = _local_seconds(op, chip)
        durations.append((op, seconds))
        busy[op.loop] += seconds
        breakdown[purpose] += seconds
    network = _collectives(schedule, placement, busy)
    breakdown[EXPOSED] = network.exposed
    breakdown[WAITING] = _waiting_seconds(durations, chip.host_bandwidth)
    breakdown[ALLOCATING] = allocated / chip.allocation_bandwidth if chip.allocation_bandwidth else 0.0
    flops, hbm, host = (
        sum(op.trips * getattr(op, field) for op in schedule) for field in ("flops", "hbm_bytes", "host_bytes")
    )
    return Cost(
        flops,
        hbm,
        host,
        network.ici,
        network.dcn,
        tuple(sorted(network.kinds.items(), key=lambda kind: -kind[1])),
        flops / chip.peak_flops,
        max(hbm / chip.hbm_bandwidth, host / chip.host_bandwidth),
        network.seconds,
        network.exposed,
        sum(busy.values()) + network.exposed + breakdown[WAITING] + breakdown[ALLOCATING],
        tuple(sorted(breakdown.items(), key=lambda part: -part[1])),
    )


def _local_seconds(op: ScheduledOp, chip: Chip) -> tuple[float, str]:
    """Seconds of all runs of an op that needs no other device, and what they go to."""
    attention = op.opcode == "custom-call" and not op.kernel.startswith("__cublas")
    speed = chip.peak_flops * MATRIX_SHARE.get(chip.name, 0.8) * (KERNEL_SHARE if attention else 1.0)
    computing, moving = op.flops / speed, op.hbm_bytes / chip.bandwidth(op.hbm_bytes)
    if chip.launch > max(computing, moving):
        purpose = LAUNCHING
    elif "rematted_computation" in op.scope:
        purpose = "recomputation"
    elif attention:
        purpose = "attention kernels"
    else:
        purpose = "matrix products" if computing >= moving else "memory traffic"
    return op.trips * max(computing, moving, chip.launch), purpose


@dataclass(frozen=True)
class _Network:
    kinds: dict[str, float]
    ici: float
    dcn: float
    seconds: float
    exposed: float


def _collectives(schedule: Sequence[ScheduledOp], placement: Placement, busy: dict[str, float]) -> _Network:
    """What collectives move and take; `busy` are the seconds of computation by loop, which cover asynchronous ones."""
    kinds: dict[str, float] = defaultdict(float)
    covered: dict[str, float] = defaultdict(float)  # seconds of asynchronous collectives by loop
    seconds = synchronous = ici = dcn = 0.0
    for op in schedule:
        if op.collective is None:
            continue
        once, between_slices = collective_seconds(op.collective, placement)
        size = op.trips * op.collective.size
        kinds[op.collective.kind] += size
        ici, dcn = (ici, dcn + size) if between_slices else (ici + size, dcn)
        seconds += op.trips * once
        if op.collective.asynchronous:
            covered[op.loop] += op.trips * once
        else:
            synchronous += op.trips * once
    outermost = schedule[-1].loop if schedule else ""
    excess = {loop: time - busy.get(loop, 0.0) for loop, time in covered.items() if loop != outermost}
    spare = sum(busy.values()) - sum(covered[loop] - max(over, 0.0) for loop, over in excess.items())
    exposed = synchronous + sum(max(0.0, over) for over in excess.values()) + max(0.0, covered[outermost] - spare)
    return _Network(kinds, ici, dcn, seconds, exposed)


def _waiting_seconds(durations: Iterable[tuple[ScheduledOp, float]], bandwidth: float) -> float:
    """Seconds that the schedule waits for transfers on the host's link, one after the other. Times are of all
    iterations of the loops together, so that a transfer is compared with what runs beside it in the same loop."""
    now = link_free = waiting = 0.0
    ends: dict[str, float] = {}  # of transfers that run beside the schedule, by the op that started them
    for op, seconds in durations:
        now += seconds
        if op.host_bytes:
            link_free = max(now, link_free) + op.trips * op.host_bytes / bandwidth
            if op.opcode.endswith("-start"):
                ends[op.name] = link_free
                continue
        end = link_free if op.host_bytes else ends.pop(op.awaits, 0.0)
        wait = max(0.0, end - now)
        waiting += wait
        now += wait
    return waiting + max(0.0, link_free - now)
