"""What machine a comparison with torch ran on."""

import platform
import re
from pathlib import Path


def instruction_sets() -> str:
    """The processor's model, the widest vector instructions that it has, and those that torch has chosen. XLA's
    compiled loops use vectors of 256 bits, its default; its products choose by the processor."""
    import torch

    chosen = f"torch uses {torch.backends.cpu.get_cpu_capability()}"
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.processor() or platform.machine()}; {chosen}"
    model = re.search(r"model name\s*:\s*(.*)", text)
    flags = set(text.split())
    widest = [name for name in ("amx_tile", "avx512_bf16", "avx512f", "avx2", "asimd") if name in flags]
    return f"{model[1].strip() if model else platform.machine()}, {', '.join(widest[:2])}; {chosen}"
