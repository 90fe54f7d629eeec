"""What a chip can do, from its maker's public pages: the only table of hardware figures.

Sources: Cloud TPU "System architecture" pages of v4, v5e, v5p and v6e (peak bf16, HBM size and bandwidth, interconnect
per chip, torus shape); "How to Scale Your Model" (jax-ml.github.io/scaling-book, "TPU specs") for the
one-way bandwidth of a link and of the host's PCIe and data-centre network per chip. Clocks are not published: they are
peak FLOP/s over the FLOPs a cycle of the matrix units named on the same pages. NVIDIA's data sheets of H200, H100 and
A100 (SXM forms: dense bf16, memory, NVLink, PCIe) and of DGX systems (an adapter of 400 or 200 Gbit/s for each card).
"""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One accelerator chip (for TPU v4 and v5p both cores, which XLA drives as one device)."""

    name: str
    peak_flops: float  # bf16 FLOP/s
    hbm_bytes: float
    hbm_bandwidth: float  # bytes/s, as every bandwidth here
    link_bandwidth: float  # of one interconnect link in one direction
    ring_size: int  # a torus dimension whose length is a multiple of this is closed to a ring; 0: none is
    dcn_bandwidth: float  # a chip's share of the network between slices
    host_bandwidth: float  # a chip's share of the link to its host
    clock: float  # cycles/s, to read the compiler's cycle estimates; 0: it gives none
    reserved_bytes: float = 0.26e9  # of HBM, by the runtime
    caches: tuple[tuple[float, float], ...] = ()  # size and bandwidth, smallest first; of CPUs alone
    allocation_bandwidth: float = 0.0  # at which a run gets its memory from the system; 0: it keeps what it has
    launch: float = 0.0  # seconds that an instruction takes at least: a GPU starts a kernel for each
    networks: tuple[str, str] = ("ICI", "DCN")  # what joins chips: near ones, and those of other slices or hosts

    def bandwidth(self, size: float) -> float:
        """Bytes/s at which an instruction moves `size` bytes: of the smallest cache that holds them, or of HBM. A TPU's
        scratch memory is planned by its compiler and is no cache."""
        return next((rate for capacity, rate in self.caches if size <= capacity), self.hbm_bandwidth)


V5E = Chip("TPU v5e", 197e12, 16 * GIB, 819e9, 45e9, 16, 3.1e9, 15e9, 1.5e9)
V5P = Chip("TPU v5p", 459e12, 95 * GIB, 2765e9, 90e9, 4, 6.2e9, 15e9, 1.75e9)
V6E = Chip("TPU v6e", 918e12, 32 * GIB, 1640e9, 90e9, 16, 12.5e9, 32e9, 1.75e9)
V4 = Chip("TPU v4", 275e12, 32 * GIB, 1228e9, 45e9, 4, 6.2e9, 15e9, 1.05e9)


def _card(name: str, flops: float, memory: float, bandwidth: float, nvlink: float, adapter: float, pcie: float) -> Chip:
    """An NVIDIA card. NVLink's switch joins all cards of a host at full speed, so that there is no torus. 2 GiB go to
    CUDA's context, its libraries and NCCL's buffers; a kernel of a CUDA graph takes about 2 µs to start: both are
    assumptions."""
    return Chip(
        name, flops, memory, bandwidth, nvlink, 0, adapter, pcie, 0.0, reserved_bytes=2.0 * GIB, launch=2e-6,
        networks=("NVLink", "network"),
    )  # fmt: skip


H200 = _card("NVIDIA H200", 989e12, 141e9, 4800e9, 450e9, 50e9, 64e9)
H100 = _card("NVIDIA H100", 989e12, 80 * GIB, 3350e9, 450e9, 50e9, 64e9)
A100 = _card("NVIDIA A100", 312e12, 80 * GIB, 2039e9, 300e9, 25e9, 32e9)

TPUS = {"v4": V4, "v5e": V5E, "v5p": V5P, "v6e": V6E}
GPUS = (H200, H100, A100)


def cpu(
    flops: float, bandwidth: float, caches: tuple[tuple[float, float], ...] = (), allocation_bandwidth: float = 0.0
) -> Chip:
    """One of the devices into which XLA divides a CPU, with its share of the machine's measured FLOP/s and bytes/s.

    Its collectives are copies in the machine's memory. Temporaries come from the system in each run, and every page
    of them costs a fault: `allocation_bandwidth`.
    """
    return Chip(
        "CPU", flops, 16 * GIB, bandwidth, bandwidth / 2, 1, bandwidth / 2, bandwidth, 0.0, 0.0, caches,
        allocation_bandwidth,
    )  # fmt: skip
