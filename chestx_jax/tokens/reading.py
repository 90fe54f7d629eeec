"""How films are read: in how many threads, and from which cache."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from chestx_jax.config import bounded
from chestx_jax.tokens.film_cache import FilmCache

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ReadingConfig:
    """What reads and keeps films; it changes no batch."""

    threads: int = bounded(0, min=0)  # that decode; 0: one a core, from 2 to 32
    cache: str = ""  # folder for resized films, which processes and runs may share; empty: none are kept
    cache_gib: float = bounded(20.0, above=0.0)  # of it; a film of 448 × 448 takes 0.2 MB grey, 0.6 in colour


def thread_count(threads: int = 0) -> int:
    """`ReadingConfig.threads`, resolved. Decoders work without Python's lock, so threads do what processes would."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return threads or min(32, max(2, cores))


def film_cache(config: ReadingConfig) -> FilmCache | None:
    """The cache of resized films, if there is to be one."""
    return FilmCache(config.cache, int(config.cache_gib * 2**30)) if config.cache else None


def map_ahead(
    function: Callable[[Item], Result], batches: Iterable[Sequence[Item]], threads: int
) -> Iterator[list[Result]]:
    """`function` of every item, batch by batch, in threads: while a batch is used, the next is prepared."""
    pool = ThreadPoolExecutor(threads)
    started: deque[list[Future[Result]]] = deque()
    try:
        for batch in batches:
            started.append([pool.submit(function, item) for item in batch])
            if len(started) > 1:
                yield [future.result() for future in started.popleft()]
        while started:
            yield [future.result() for future in started.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)
