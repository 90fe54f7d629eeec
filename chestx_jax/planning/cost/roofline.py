"""How long a compiled program takes by the chip's public figures.

Three bounds of the whole program, each as if the other two were free:

    compute       FLOPs / (peak bf16 FLOP/s)
    memory        HBM bytes / (HBM bytes/s), and host bytes / (host bytes/s)
    interconnect  sum over collectives of the time on their links (`links`)

and a prediction, which runs the schedule one instruction after the other: each takes the longer of its FLOPs at
`MATRIX_SHARE` of the peak and its HBM bytes. A collective that the compiler set beside computation costs only what
computation does not cover: that of its loop, or of the whole program where it starts outside loops; any other costs its
whole time. A transfer to or from the host's memory takes its turn on that link and runs beside what the schedule has
between its start and its end; the rest is waited for.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from chestx_jax.planning.cost.interconnect import Slice, seconds
from chestx_jax.planning.hlo.schedule import Work

# What libtpu's own cost model says an 8,192³ bf16 product reaches of the peak (estimated cycles of that product
# compiled alone, at the clock in `chips`); tests/benchmarks/planning.py prints them.
MATRIX_SHARE = {"TPU v5e": 0.88, "TPU v5p": 0.90, "TPU v6e": 0.70, "CPU": 1.0}  # a CPU's FLOP/s are measured ones
WAITING = "host transfers not covered"
KERNEL_SHARE = 0.5  # of a matrix product's speed that a fused attention kernel reaches: softmax runs on vector units


@dataclass(frozen=True)
class Cost:
    """Totals of one run on one device. Times in seconds, sizes in bytes."""

    flops: float
    hbm: float
    host: float
    ici: float  # bytes of collectives within a slice, the larger side of each
    dcn: float  # and between slices
    kinds: tuple[tuple[str, float], ...]  # bytes by kind of collective
    compute: float
    memory: float
    interconnect: float
    exposed: float  # of the interconnect's time, what no computation covers
    predicted: float
    spent: tuple[tuple[str, float], ...]  # the predicted seconds by what they go to (`_purpose`)

    @property
    def bound(self) -> str:
        times = {"compute": self.compute, "memory": self.memory, "interconnect": self.interconnect}
        return max(times, key=lambda name: times[name])


def cost(work: Sequence[Work], place: Slice, fresh: float = 0.0) -> Cost:
    """The cost of a program whose mesh sits at `place` and whose run takes `fresh` bytes of memory from the system."""
    chip = place.chip
    share = MATRIX_SHARE.get(chip.name, 0.8)
    kinds: dict[str, float] = defaultdict(float)
    busy: dict[str, float] = defaultdict(float)  # by the loop they run in
    hidden: dict[str, float] = defaultdict(float)
    spent: dict[str, float] = defaultdict(float)
    outermost = work[-1].loop if work else ""
    open_time = interconnect = ici = dcn = 0.0
    link = _HostLink(chip.host_rate)
    for item in work:
        if item.collective is None:
            speed = chip.flops * share * (KERNEL_SHARE if item.opcode == "custom-call" else 1.0)
            moving = item.hbm / chip.rate(item.hbm)
            took = item.trips * max(item.flops / speed, moving)
            busy[item.loop] += took
            spent[_purpose(item, item.flops / speed >= moving)] += took
            spent[WAITING] += link.waited(item, took)
            continue
        took, far = seconds(item.collective, place)
        size = item.trips * item.collective.size
        kinds[item.collective.kind] += size
        ici, dcn = (ici, dcn + size) if far else (ici + size, dcn)
        interconnect += item.trips * took
        if item.collective.hidden:
            hidden[item.loop] += item.trips * took
        else:
            open_time += item.trips * took
    uncovered = {loop: time - busy.get(loop, 0.0) for loop, time in hidden.items() if loop != outermost}
    spare = sum(busy.values()) - sum(hidden[loop] - max(over, 0.0) for loop, over in uncovered.items())
    exposed = open_time + sum(max(0.0, over) for over in uncovered.values()) + max(0.0, hidden[outermost] - spare)
    spent["collectives not covered"] = exposed
    spent[WAITING] += link.rest
    spent["memory from the system"] = taken = fresh / chip.fresh_rate if chip.fresh_rate else 0.0
    total = lambda field: sum(item.trips * getattr(item, field) for item in work)  # noqa: E731
    flops, hbm, host = total("flops"), total("hbm"), total("host")
    return Cost(
        flops, hbm, host, ici, dcn, tuple(sorted(kinds.items(), key=lambda kind: -kind[1])),
        flops / chip.flops, max(hbm / chip.hbm_rate, host / chip.host_rate), interconnect, exposed,
        sum(busy.values()) + exposed + spent[WAITING] + taken, tuple(sorted(spent.items(), key=lambda part: -part[1])),
    )  # fmt: skip


class _HostLink:
    """The link to the host's memory while the schedule runs: one transfer after the other. Times are of all turns of
    the loops together, so that what stands in one body is compared with what stands in it."""

    def __init__(self, rate: float):
        self.rate, self.now, self.free = rate, 0.0, 0.0
        self.ends: dict[str, float] = {}

    def waited(self, item: Work, took: float) -> float:
        """Seconds that the schedule stands still at `item`, which itself takes `took`."""
        self.now += took
        if item.host:
            self.free = max(self.now, self.free) + item.trips * item.host / self.rate
            if item.opcode.endswith("-start"):
                self.ends[item.name] = self.free
                return 0.0
        end = self.free if item.host else self.ends.pop(item.waits, 0.0)
        wait = max(0.0, end - self.now)
        self.now += wait
        return wait

    @property
    def rest(self) -> float:
        """Seconds until the last transfer is done, at the end of the program."""
        return max(0.0, self.free - self.now)


def _purpose(item: Work, computing: bool) -> str:
    """What an instruction's time goes to, by the name of the Python code that it comes from."""
    if "rematted_computation" in item.scope:
        return "recomputation"
    if item.opcode == "custom-call":
        return "attention kernels"
    return "matrix products" if computing else "memory traffic"
