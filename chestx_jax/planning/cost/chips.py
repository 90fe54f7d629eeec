"""What a chip can do, from its maker's public pages: the only table of hardware figures.

Sources: Cloud TPU "System architecture" pages of v4, v5e, v5p and v6e (peak bf16, HBM size and bandwidth, interconnect
per chip, torus shape); "How to Scale Your Model" (jax-ml.github.io/scaling-book, "TPU specs") for the
one-way bandwidth of a link and of the host's PCIe and data-centre network per chip. Clocks are not published: they are
peak FLOP/s over the FLOPs a cycle of the matrix units named on the same pages. NVIDIA H200 and A100 data sheets.
"""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One accelerator chip (for TPU v4 and v5p both cores, which XLA drives as one device)."""

    name: str
    flops: float  # peak bf16 FLOP/s
    hbm_bytes: float
    hbm_rate: float  # bytes/s
    link_rate: float  # bytes/s of one interconnect link in one direction
    dimensions: int  # of the torus: links leave a chip both ways along each
    wraps: int  # a dimension that is a multiple of this has links around; 0: never
    dcn_rate: float  # bytes/s a chip gets of the network between slices
    host_rate: float  # bytes/s a chip gets of the link to its host
    clock: float  # cycles/s, for the compiler's cycle estimates; 0: it gives none
    reserved: float = 0.26e9  # bytes of HBM that the runtime keeps for itself
    caches: tuple[tuple[float, float], ...] = ()  # an instruction that touches no more bytes moves them at this rate
    fresh_rate: float = 0.0  # bytes/s at which a run gets its memory from the system; 0: it keeps what it has

    def rate(self, touched: float) -> float:
        """Bytes/s at which an instruction moves the `touched` bytes: of the smallest cache that holds them, or of HBM.
        Only CPUs have caches here; a TPU's scratch memory is the compiler's to plan."""
        return next((rate for size, rate in self.caches if touched <= size), self.hbm_rate)


V5E = Chip("TPU v5e", 197e12, 16 * GIB, 819e9, 45e9, 2, 16, 3.1e9, 15e9, 1.5e9)
V5P = Chip("TPU v5p", 459e12, 95 * GIB, 2765e9, 90e9, 3, 4, 6.2e9, 15e9, 1.75e9)
V6E = Chip("TPU v6e", 918e12, 32 * GIB, 1640e9, 90e9, 2, 16, 12.5e9, 32e9, 1.75e9)
V4 = Chip("TPU v4", 275e12, 32 * GIB, 1228e9, 45e9, 3, 4, 6.2e9, 15e9, 1.05e9)
H200 = Chip("NVIDIA H200", 989e12, 141e9, 4800e9, 450e9, 1, 1, 50e9, 64e9, 0.0)
A100 = Chip("NVIDIA A100 80GB", 312e12, 80e9, 2039e9, 300e9, 1, 1, 25e9, 32e9, 0.0)

TPUS = {"v4": V4, "v5e": V5E, "v5p": V5P, "v6e": V6E}
GPUS = (H200, A100)


def cpu(flops: float, rate: float, caches: tuple[tuple[float, float], ...] = (), fresh_rate: float = 0.0) -> Chip:
    """One of the devices that XLA makes of a CPU: its share of what the machine measures, in FLOP/s and bytes/s, of
    memory and of caches by size. Its memory is the machine's, and its collectives are copies. Temporaries come from
    the system in each run, whose every page costs a fault: `fresh_rate`."""
    return Chip("CPU", flops, 16 * GIB, rate, rate / 2, 1, 1, rate / 2, rate, 0.0, 0.0, caches, fresh_rate)
