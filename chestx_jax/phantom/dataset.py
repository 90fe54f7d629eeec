"""Writes the phantom set to a folder as RadR records and PNG films, the form in which real collections are read.

python -m chestx_jax.phantom write --out DIR [--seed 0]

train_reasoning.jsonl  train_answer.jsonl       SFT sources: with and without reference reasoning
base_regions.jsonl     base_extents.jsonl       base stage: what each region of a film shows, how extensive it is,
base_checks.jsonl      base_pairs.jsonl           option checks of films, extents on both films of a pair,
base_told.jsonl        base_told_checks.jsonl     questions and option checks of films given as text,
base_told_changes.jsonl                           and changes
rl.jsonl  validation.jsonl  test.jsonl          all five task families; no patient is in two splits
images/SPLIT/*.png                              8-bit gray films
about.json                                      the spec and the counts
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np

from chestx_jax import files
from chestx_jax.config import SEED_LIMIT, bounded
from chestx_jax.data.schema import Sample, record_from_sample
from chestx_jax.errors import UserError
from chestx_jax.phantom.cases import PROGRESSIVE, draw_case, draw_follow_up
from chestx_jax.phantom.drawing.render import Job, to_json
from chestx_jax.phantom.finding import CHANGES
from chestx_jax.phantom.pretraining import (
    option_checks,
    pair_extents,
    region_captions,
    region_extents,
    text_only,
    told_changes,
)
from chestx_jax.phantom.text.questions import Study, questions
from chestx_jax.phantom.text.reports import write_reports


@dataclass(frozen=True)
class Split:
    """Patients of one split and the questions asked about them."""

    patients: int = bounded(min=0)  # with one film
    follow_ups: int = bounded(min=0)  # with two films
    per_task: int = bounded(min=0)  # questions of each of the five families


@dataclass(frozen=True)
class PhantomSpec:
    """Everything that determines the set, to the byte (for one version of numpy and pillow)."""

    seed: int = bounded(0, min=0, max=SEED_LIMIT)
    size: int = bounded(112, min=56, max=2048)  # pixels of a film's side
    train: Split = field(default=Split(patients=3500, follow_ups=1500, per_task=4000))
    rl: Split = field(default=Split(patients=600, follow_ups=200, per_task=400))
    validation: Split = field(default=Split(patients=200, follow_ups=60, per_task=60))
    test: Split = field(default=Split(patients=600, follow_ups=200, per_task=200))


def write_phantom(
    folder: str | Path,
    spec: PhantomSpec = PhantomSpec(),
    processes: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the set of `spec` to `folder` and return the folder; one that already holds this set is kept.

    Films are drawn by `processes` processes (0: one per core, 16 at most) while the texts are written. The folder
    appears whole or not at all. `progress` is called with (films drawn, films in all). Raises UserError if `folder`
    holds something else, for a spec out of range, and if the disk is full.
    """
    folder = Path(folder)
    _check(spec)
    about = asdict(spec)
    if folder.exists():
        _check_same(folder, about)
        return folder
    processes = processes or min(os.cpu_count() or 1, 16)
    try:
        with files.replacing_folder(folder) as partial:
            counts = _write_files(partial, spec, processes, progress or (lambda done, total: None))
            files.write_json(partial / "about.json", {"spec": about, "samples": counts})
    except OSError as problem:
        raise UserError(
            f"The phantom set could not be written to {folder} ({problem}); free space there or choose another folder."
        ) from None
    return folder


def _write_files(
    folder: Path, spec: PhantomSpec, processes: int, progress: Callable[[int, int], None]
) -> dict[str, int]:
    """Films and records of all splits; returns the number of samples by file name."""
    splits = {"train": spec.train, "rl": spec.rl, "validation": spec.validation, "test": spec.test}
    studies, jobs = {}, []
    for number, (name, split) in enumerate(splits.items()):
        (folder / "images" / name).mkdir(parents=True)
        studies[name], films = _studies(spec.seed, number, name, split)
        jobs += films
    with ExitStack() as stack:
        workers = []
        for i in range(processes):
            workers.append(stack.enter_context(_start_drawing(folder, spec.size, jobs[i::processes])))
            stack.callback(workers[-1].kill)  # runs first on exit: an interrupted write does not wait for its films
        counts = {name: _save(folder, name, samples) for name, samples in _sources(studies, jobs, spec).items()}
        _finish_drawing(workers, len(jobs), progress)
    return counts


def _studies(seed: int, number: int, name: str, split: Split) -> tuple[list[Study], list[Job]]:
    """The patients of a split with their reports, and the films to draw."""
    studies, jobs = [], []
    changes = list(product(PROGRESSIVE, CHANGES))
    for patient in range(split.patients + split.follow_ups):
        rng = np.random.default_rng((seed, number, patient))
        id = f"{name}-{patient:05d}"
        later = patient - split.patients
        case = draw_case(rng, id) if later < 0 else draw_follow_up(rng, id, *changes[later % len(changes)])
        films = [film for film in (case.earlier, case.findings) if film is not None]
        paths = tuple(f"images/{name}/{patient:05d}{'ab'[i] if len(films) > 1 else ''}.png" for i in range(len(films)))
        jobs += [
            Job(path, (seed, number, patient, 1), (seed, number, patient, 2 + i), film)
            for i, (path, film) in enumerate(zip(paths, films, strict=True))
        ]
        studies.append(Study(case, paths, write_reports(case, rng)))
    return studies, jobs


def _sources(studies: dict[str, list[Study]], jobs: Sequence[Job], spec: PhantomSpec) -> dict[str, list[Sample]]:
    """Samples by file name."""

    def rng(number: int) -> np.random.Generator:
        return np.random.default_rng((spec.seed, 1000 + number))

    answer_only = questions(studies["train"], spec.train.per_task, "train-answer", "phantom-answer", rng(1))
    in_words = questions(studies["train"], spec.train.per_task, "told", "told", rng(2))
    job_of = {job.path: job for job in jobs}
    regions = region_captions(studies["train"], job_of, "region")
    captions = {sample.images: sample.answer for sample in regions}
    return {
        "train_reasoning": questions(studies["train"], spec.train.per_task, "train", "phantom", rng(0)),
        "train_answer": [replace(sample, steps=()) for sample in answer_only],
        "base_regions": regions,
        "base_checks": option_checks(regions, "checks", rng(8)),
        "base_extents": region_extents(regions, job_of, "extents"),
        "base_pairs": pair_extents(studies["train"], "pairs"),
        "base_told": text_only(in_words, captions),
        "base_told_checks": text_only(option_checks(regions, "told-checks", rng(9)), captions),
        "base_told_changes": told_changes("told-changes", rng(10)),
        "rl": questions(studies["rl"], spec.rl.per_task, "rl", "phantom", rng(4)),
        "validation": questions(studies["validation"], spec.validation.per_task, "validation", "phantom", rng(5)),
        "test": questions(studies["test"], spec.test.per_task, "test", "phantom", rng(6)),
    }


def _save(folder: Path, name: str, samples: Sequence[Sample]) -> int:
    files.write_json_lines(folder / f"{name}.jsonl", map(record_from_sample, samples))
    return len(samples)


def _start_drawing(folder: Path, size: int, jobs: Sequence[Job]) -> subprocess.Popen[str]:
    """Start a process that draws `jobs`; it does not import the caller's main module."""
    package_root = str(Path(__file__).resolve().parents[2])
    python_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    # One thread each: the arrays are small, and the processes already use every core.
    environment = {**os.environ, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "chestx_jax.phantom.drawing.render", str(folder), str(size)]
    with tempfile.TemporaryFile("w+", dir=folder) as job_file:
        job_file.writelines(to_json(job) + "\n" for job in jobs)
        job_file.seek(0)
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=job_file, stdout=pipe, stderr=pipe, text=True, env=environment)


def _finish_drawing(workers: Sequence[subprocess.Popen[str]], total: int, progress: Callable[[int, int], None]) -> None:
    """Wait for the drawing processes. Raises OSError with the last line of one that fails."""
    for line in workers[0].stdout or ():
        progress(min(int(line) * len(workers), total), total)
    for worker in workers:
        _, errors = worker.communicate()
        if worker.returncode:
            raise OSError((errors.strip().splitlines() or ["a drawing process was stopped"])[-1])
    progress(total, total)


def _check(spec: PhantomSpec) -> None:
    if not 56 <= spec.size <= 2048:
        raise UserError(f"Phantom size {spec.size} is out of range; choose 56 to 2048 pixels.")
    for name in ("train", "rl", "validation", "test"):
        split = getattr(spec, name)
        if min(split.patients, split.follow_ups, split.per_task) < 0 or (split.per_task and split.patients < 20):
            raise UserError(f"Phantom split {name} is too small ({split}); give it at least 20 patients.")


def _check_same(folder: Path, about: dict) -> None:
    try:
        existing = json.loads((folder / "about.json").read_text())["spec"]
    except (OSError, ValueError, KeyError):
        existing = None
    if existing != about:
        raise UserError(
            f"{folder} already holds something else; choose another folder for the phantom set, or remove it."
        )
