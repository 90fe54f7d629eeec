"""What machine a benchmark ran on."""

import platform
import re
from pathlib import Path


def instruction_sets() -> str:
    """The processor's model and the widest vector instructions that it has."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    model = re.search(r"model name\s*:\s*(.*)", text)
    flags = set(text.split())
    widest = [name for name in ("amx_tile", "avx512_bf16", "avx512f", "avx2", "asimd") if name in flags]
    return f"{model[1].strip() if model else platform.machine()}, {', '.join(widest[:2])}"
