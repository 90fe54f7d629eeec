"""Films a second, from files to patches: decoded in one thread and in several, and from the cache of resized films,
beside PIL with transformers' processor: `python -m tests.benchmarks.films [FILMS] [ROUNDS]`.

The films are phantoms enlarged to 3,056 × 2,544 with noise, in files of the size of radiographs'. The ways take turns
within a round, so that what else the machine does meets all of them; the best round counts. Time of the cores, of all
threads together, hardly depends on what else they do.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from chestx_jax.phantom.drawing.render import Job, draw
from chestx_jax.tokens.film_cache import FilmCache
from chestx_jax.tokens.films import load_film
from chestx_jax.tokens.patches import ImageSpec, patches
from chestx_jax.tokens.reading import thread_count

SPEC = ImageSpec(max_pixels=448 * 448)
HEIGHT, WIDTH = 3056, 2544
STREAM, HOSTS = 128 / 0.40, 8  # films a second of SFT on a v5p-64, by its planned step; its hosts


def main() -> None:
    count, rounds = map(int, [*sys.argv[1:], *("8", "3")[len(sys.argv) - 1 :]])
    threads = thread_count()
    print(f"{count} films a kind, best of {rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"SFT on a v5p-64 takes {STREAM:.0f} films a second, {STREAM / HOSTS:.0f} a host")
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(threads) as pool:
        folder = Path(name)
        for kind in ("grey.jpg", "grey.png", "colour.jpg"):
            paths = [write_film(folder / f"{n}-{kind}", n) for n in range(count)]
            size = np.mean([path.stat().st_size for path in paths]) / 2**20
            times: dict[str, list[tuple[float, float]]] = {}
            for number in range(rounds):
                cache = FilmCache(folder / f"cache-{number}-{kind}", 2**30)
                for way, read in ways(cache, pool, threads).items():
                    start = time.perf_counter(), time.process_time()
                    read(paths)
                    wall, cores = time.perf_counter() - start[0], time.process_time() - start[1]
                    times.setdefault(way, []).append((wall / count, cores / count))
            for way, measured in times.items():
                wall, cores = map(min, zip(*measured, strict=True))
                rates = f"{1 / wall:8.1f} films/s{1000 * cores:8.1f} ms of a core a film"
                print(f"{kind:10} of {size:3.1f} MiB: {way:24}{rates}", flush=True)


def ways(cache: FilmCache, pool: ThreadPoolExecutor, threads: int) -> dict[str, Callable[[list[Path]], object]]:
    """What is timed, in this order: the first run with the cache fills it."""
    decode = lambda path: patches(load_film(path, SPEC), SPEC)  # noqa: E731
    cached = lambda path: patches(cache.load(path, SPEC), SPEC)  # noqa: E731
    return {
        "PIL and transformers": lambda paths: [processed(path) for path in paths],
        "decoded, 1 thread": lambda paths: [decode(path) for path in paths],
        f"decoded, {threads} threads": lambda paths: list(pool.map(decode, paths)),
        "decoded and kept": lambda paths: [cached(path) for path in paths],
        "from the cache, 1 thread": lambda paths: [cached(path) for path in paths],
        f"from the cache, {threads} threads": lambda paths: list(pool.map(cached, paths)),
    }


def processed(path: Path) -> object:
    """The film as transformers' processor returns it."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    bounds = {"shortest_edge": SPEC.min_pixels, "longest_edge": SPEC.max_pixels}
    return Qwen2VLImageProcessorPil(size=bounds)(images=[Image.open(path)], return_tensors="np")


def write_film(path: Path, seed: int) -> Path:
    """A phantom of a radiograph's size and detail, in the form that the path's name says."""
    drawn = Image.fromarray(draw(Job("", (seed,), (seed, 1), ()), 448)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC
    )
    noise = np.random.default_rng(seed).integers(-3, 4, (HEIGHT, WIDTH), np.int16)
    film = Image.fromarray(np.clip(np.asarray(drawn, np.int16) + noise, 0, 255).astype(np.uint8))
    (film.convert("RGB") if path.name.endswith("colour.jpg") else film).save(path, quality=90)
    return path


if __name__ == "__main__":
    main()
