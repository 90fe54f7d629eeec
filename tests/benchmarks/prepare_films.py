"""Films per second of `prepare` on a folder of NIH films, beside reading and resizing them with Pillow alone.

python -m tests.benchmarks.prepare_films --raw=DIR [--size=224] [--workers=2]

The second figure is what a loader in the manner of torchvision does in every epoch: open, convert to RGB, resize, in
as many processes, and nothing written.
"""

import argparse
import io
import multiprocessing
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from chestx_jax.sources.prepare import PrepareConfig, prepare


def read_rgb(path, size):
    with Image.open(path) as image:
        return int(np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))[0, 0, 0])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        config = PrepareConfig("nih", options.size, "squash", ("all",))
        films = prepare(config, options.raw, Path(folder, "out"), options.workers, io.StringIO())["films"]
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.png")) / films / 1000
    own, worker = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"prepare: {films} films, {films / seconds:.0f} films/s with start and studies, {size:.0f} kB a film")
    print(f"memory: command {own:.0f} MiB, largest worker {worker:.0f} MiB")
    paths = sorted(options.raw.rglob("*.png"))
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        pool.map(abs, range(options.workers))  # started
        started = time.perf_counter()
        pool.map(partial(read_rgb, size=options.size), paths, chunksize=8)
        seconds = time.perf_counter() - started
    print(f"Pillow alone: {len(paths) / seconds:.0f} films/s")


if __name__ == "__main__":
    main()
