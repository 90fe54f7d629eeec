"""Several processes that make small films; one that dies is replaced, and its film counts as unreadable."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from dataclasses import asdict

from chestx_jax.sources.film_worker import FilmJob, FilmResult

_COMMAND = (sys.executable, "-m", "chestx_jax.sources.film_worker")
_DIED = "the process that read it died, perhaps for want of memory"


def convert_films(jobs: Sequence[FilmJob], workers: int) -> Generator[tuple[FilmJob, FilmResult]]:
    """Makes the films with `workers` processes; yields each job with its result as it is done. Closing the iterator
    ends the processes."""
    waiting: queue.SimpleQueue[FilmJob | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[FilmJob, FilmResult] | BaseException] = queue.SimpleQueue()
    workers = min(workers, len(jobs))
    for job in (*jobs, *[None] * workers):
        waiting.put(job)
    stop = threading.Event()
    threads = [threading.Thread(target=_drive_worker, args=(waiting, done, stop)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for _ in jobs:
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _drive_worker(waiting: queue.SimpleQueue, done: queue.SimpleQueue, stop: threading.Event) -> None:
    process = _start()
    try:
        while (job := waiting.get()) is not None and not stop.is_set():
            result = _ask(process, job)
            if result is None:
                _end(process)
                process = _start()
            done.put((job, result or FilmResult(error=f"The image {job.raw} cannot be read: {_DIED}.")))
    except BaseException as error:  # for the thread that waits
        done.put(error)
    finally:
        _end(process)


def _start() -> subprocess.Popen[str]:
    """A worker in a session of its own: an interrupt from the keyboard reaches the command alone."""
    pipe = subprocess.PIPE
    return subprocess.Popen(_COMMAND, stdin=pipe, stdout=pipe, text=True, bufsize=1, start_new_session=True)


def _ask(process: subprocess.Popen[str], job: FilmJob) -> FilmResult | None:
    """The worker's answer, None where it is dead."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(asdict(job)) + "\n")
        return FilmResult(**json.loads(process.stdout.readline()))
    except (OSError, ValueError):  # a broken pipe, or no line
        return None


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
