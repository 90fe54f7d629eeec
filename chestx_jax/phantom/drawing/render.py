"""A drawing process: reads films to draw as JSON lines on standard input, writes PNG files.

Run as `python -m chestx_jax.phantom.drawing.render FOLDER SIZE`; imports neither jax nor the main program, so that it
starts at once. Prints a line for every hundred films.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from chestx_jax.phantom.drawing.anatomy import draw_anatomy, draw_pose
from chestx_jax.phantom.drawing.film import draw_film
from chestx_jax.phantom.finding import Finding


@dataclass(frozen=True)
class Job:
    """One film: where to write it, the seeds of the patient's build and of the exposure, and what it shows."""

    path: str
    patient: tuple[int, ...]
    film: tuple[int, ...]
    findings: tuple[Finding, ...]


def to_json(job: Job) -> str:
    return json.dumps(asdict(job))


def from_json(line: str) -> Job:
    fields = json.loads(line)
    findings = tuple(Finding(**finding) for finding in fields["findings"])
    return Job(fields["path"], tuple(fields["patient"]), tuple(fields["film"]), findings)


def draw(job: Job, size: int) -> np.ndarray:
    """The job's film, uint8[size, size]: a function of the job alone."""
    anatomy = draw_anatomy(np.random.default_rng(job.patient))
    rng = np.random.default_rng(job.film)
    return draw_film(anatomy, draw_pose(rng), job.findings, rng, size)


def render(jobs: Iterable[Job], folder: Path, size: int) -> Iterator[int]:
    """Draws and writes the films one by one, yielding how many are done."""
    for done, job in enumerate(jobs, start=1):
        # Grain does not compress: the lowest level halves the time and costs few bytes.
        Image.fromarray(draw(job, size)).save(folder / job.path, compress_level=1)
        yield done


if __name__ == "__main__":
    for done in render(map(from_json, sys.stdin), Path(sys.argv[1]), int(sys.argv[2])):
        if done % 100 == 0:
            print(done, flush=True)
