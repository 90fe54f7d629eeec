"""A drawing process: reads drawing jobs as JSON lines from standard input and writes PNG files.

Run as `python -m chestx_jax.phantom.drawing.render FOLDER SIZE`. It imports neither jax nor the main program, so that
it starts fast, and prints the number of films after every hundred.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from chestx_jax.phantom.drawing.anatomy import draw_anatomy, draw_pose
from chestx_jax.phantom.drawing.film import draw_film
from chestx_jax.phantom.finding import Finding


@dataclass(frozen=True)
class Job:
    """One film to draw."""

    path: str  # relative to the set's folder
    patient: tuple[int, ...]  # seed of the anatomy
    film: tuple[int, ...]  # seed of pose, exposure and grain
    findings: tuple[Finding, ...]


def to_json(job: Job) -> str:
    """The job as one JSON line."""
    return json.dumps(asdict(job))


def from_json(line: str) -> Job:
    """The inverse of `to_json`."""
    fields = json.loads(line)
    findings = tuple(Finding(**finding) for finding in fields["findings"])
    return Job(fields["path"], tuple(fields["patient"]), tuple(fields["film"]), findings)


def draw(job: Job, size: int) -> UInt8[np.ndarray, "S S"]:
    """The job's film as gray levels, a function of the job and the size alone."""
    anatomy = draw_anatomy(np.random.default_rng(job.patient))
    rng = np.random.default_rng(job.film)
    return draw_film(anatomy, draw_pose(rng), job.findings, rng, size)


def render(jobs: Iterable[Job], folder: Path, size: int) -> Iterator[int]:
    """Draw and write the films one by one; yields the number written."""
    for done, job in enumerate(jobs, start=1):
        # Grain does not compress: the lowest level halves the time at the cost of few bytes.
        Image.fromarray(draw(job, size)).save(folder / job.path, compress_level=1)
        yield done


if __name__ == "__main__":
    for done in render(map(from_json, sys.stdin), Path(sys.argv[1]), int(sys.argv[2])):
        if done % 100 == 0:
            print(done, flush=True)
