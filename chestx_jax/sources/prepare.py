"""A raw set becomes a folder of small films and a file of studies, which mining and training read.

OUT/settings.json   what the films depend on
OUT/films/…png      one file a film, under the path that it has in the raw folder
OUT/studies.jsonl   the studies, with paths relative to OUT
OUT/about.json      counts
"""

import contextlib
import errno
import itertools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO, get_args

from chestx_jax import files
from chestx_jax.config import bounded
from chestx_jax.errors import UserError, nearest
from chestx_jax.progress import progress, rates
from chestx_jax.sources.catalog import read_studies
from chestx_jax.sources.film_pool import convert_films
from chestx_jax.sources.film_worker import Aspect, FilmJob, original_size
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.study import FRONTAL, Study, View, study_from_json, study_to_json
from chestx_jax.tokens.films import READER_VERSION

_GROUPS: dict[str, tuple[View, ...]] = {"frontal": FRONTAL, "all": get_args(View)}
_NO_VIEW = "no film of the views asked for, and no report"


@dataclass(frozen=True)
class PrepareConfig:
    """What is made of a set: films of some `views` at most `size` pixels high and wide, of its first `limit` studies
    (0: of all)."""

    source: str
    size: int = bounded(448, min=28, max=4096)
    aspect: Aspect = "keep"
    views: tuple[str, ...] = ("frontal",)
    limit: int = bounded(0, min=0)


def prepare(config: PrepareConfig, raw: Path, out: Path, workers: int, console: TextIO = sys.stderr) -> dict[str, Any]:
    """Makes the folder `out`, or goes on with it: films that are there are not made again. Returns the counts.

    The folder's bytes do not depend on `workers`. Raises UserError for a raw folder of another set, a folder `out` of
    other settings, and no studies at all; OSError for a full disk.
    """
    _check_out(config, raw, out)
    chosen = selected_views(config.views)
    problems = Problems(lambda sentence: print(sentence, file=console))
    views: Counter[str] = Counter()
    listed = out / "listed.jsonl"
    studies = itertools.islice(read_studies(config.source, raw, problems), config.limit or None)
    files.write_json_lines(listed, _selected(studies, chosen, views, problems))
    failed = _make_films(config, raw, out, listed, workers, console)
    counts = _new_counts()
    files.write_json_lines(out / "studies.jsonl", _finished(listed, out, failed, counts, problems))
    listed.unlink()
    if not counts["studies"]:
        raise UserError(f"{raw} has no study that can be used (reasons above): check the folder and --views.")
    about = {
        **{
            name: dict(sorted(value.items())) if isinstance(value, Counter) else value for name, value in counts.items()
        },
        "films left out by view": dict(sorted(views.items())),
        **problems.to_json(),
    }
    files.write_json(out / "about.json", about)
    return about


def read_prepared(folder: Path) -> Iterator[Study]:
    """The studies of a prepared folder. Raises UserError where it is none."""
    path = folder / "studies.jsonl"
    if not path.is_file():
        raise UserError(f"{folder} has no studies.jsonl: run chestx_jax.prepare to its end with --out={folder}.")
    return _read_studies(path)


def selected_views(names: tuple[str, ...]) -> tuple[View, ...]:
    """Views by their names, `frontal` for all that are, `all` for all. Raises UserError for an unknown name."""
    views: list[View] = []
    for name in names:
        if name not in (*_GROUPS, *get_args(View)):
            known = sorted({*_GROUPS, *get_args(View)})
            near = nearest(name, known)
            raise UserError(f"There is no view {name!r}: choose {near or ', '.join(known)}.")
        views += _GROUPS.get(name, (name,))  # type: ignore[arg-type]
    return tuple(dict.fromkeys(views))


def _check_out(config: PrepareConfig, raw: Path, out: Path) -> None:
    """Writes the settings into a new folder; refuses one that was made with others, or that holds anything else."""
    if out.resolve().is_relative_to(raw.resolve()):
        raise UserError(f"{out} lies in the raw folder {raw}, whose films would be read again: choose another --out.")
    settings = {"source": config.source, "size": config.size, "aspect": config.aspect, "reader": READER_VERSION}
    path = out / "settings.json"
    if path.is_file():
        earlier = files.read_json_object(path, "choose another --out")
        for name, value in settings.items():
            if earlier.get(name) != value:
                raise UserError(
                    f"{out} was made with {name} {earlier.get(name)} and not {value}: choose another --out."
                )
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and was not made by this command: choose another --out.")
    else:
        files.write_json(path, settings)


def _selected(
    studies: Iterator[Study], chosen: tuple[View, ...], left_out: Counter[str], problems: Problems
) -> Iterator[dict[str, Any]]:
    """The studies as JSON with the films of the chosen views; those left with nothing to show or read are skipped."""
    for study in studies:
        films = tuple(film for film in study.films if film.view in chosen)
        for film in study.films:
            if film.view not in chosen:
                left_out[film.view] += 1
                if film.view == "unknown":
                    problems.note("a film of unknown view", film.path, "it is left out (--views=…,unknown takes it)")
        if films or study.report.strip():
            yield study_to_json(_with_films(study, {film.id: film.path for film in films}))
        else:
            problems.skip(_NO_VIEW, f"study {study.id} of {study.patient}")


def _with_films(study: Study, paths: dict[str, str]) -> Study:
    """The study with the films that have a path, and their boxes."""
    films = tuple(film._replace(path=paths[film.id]) for film in study.films if film.id in paths)
    return replace(study, films=films, boxes=tuple(box for box in study.boxes if box.film in paths))


def _make_films(
    config: PrepareConfig, raw: Path, out: Path, listed: Path, workers: int, console: TextIO
) -> dict[str, str]:
    """Makes the films that are not there; returns why others cannot be read, by their raw paths."""
    done = _done_films(out)
    paths = list(dict.fromkeys(film.path for study in _read_studies(listed) for film in study.films))
    jobs = [
        FilmJob(str(raw / path), str(out / small_path(path)), config.size, config.aspect)
        for path in paths
        if small_path(path) not in done
    ]
    before = len(paths) - len(jobs)
    failed = {}
    measure = rates(time.monotonic, before)
    show_progress = progress("prepare", len(paths), (), console, unit="film")
    with show_progress as show, contextlib.closing(convert_films(jobs, workers)) as results:
        for i, (job, result) in enumerate(results, start=before + 1):
            if result.disk_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), job.out)
            if result.error:
                failed[Path(job.raw).relative_to(raw).as_posix()] = result.error
            if i % 16 == 0 or i == len(paths):
                show(i, measure(i, {}))
    return failed


def small_path(path: str) -> str:
    """Where the small film of a raw one goes, relative to the prepared folder."""
    return f"films/{path}" if path.endswith(".png") else f"films/{path}.png"


def _done_films(out: Path) -> set[str]:
    """The films that are there; what a kill left half-written is removed."""
    done = set()
    for parent, _, names in os.walk(out):
        for name in names:
            path = Path(parent, name)
            if name.endswith(".partial"):
                path.unlink()
            else:
                done.add(path.relative_to(out).as_posix())
    return done


def _new_counts() -> dict[str, Any]:
    counters = ("splits", "views", "sections", "labels")
    return {
        "studies": 0,
        "patients": 0,
        "films": 0,
        "text only": 0,
        "boxes": 0,
        **{name: Counter() for name in counters},
    }


def _finished(
    listed: Path, out: Path, failed: dict[str, str], counts: dict[str, Any], problems: Problems
) -> Iterator[dict[str, Any]]:
    """The studies with the films that were made, counted as they pass."""
    patients = set()
    for study in _read_studies(listed):
        for film in study.films:
            if film.path in failed:
                problems.note("a film that cannot be read", failed[film.path].rstrip("."), "the study goes without it")
        study = _with_films(study, {f.id: small_path(f.path) for f in study.films if f.path not in failed})
        if not study.films and not study.report.strip():
            problems.skip("no film that can be read, and no report", f"study {study.id} of {study.patient}")
            continue
        sizes = {film.id: film.path for film in study.films}
        boxes = (box if box.frame else box._replace(frame=original_size(out / sizes[box.film])) for box in study.boxes)
        study = replace(study, boxes=tuple(boxes))
        patients.add(study.patient)
        counts["studies"] += 1
        counts["patients"] = len(patients)
        counts["films"] += len(study.films)
        counts["text only"] += not study.films
        counts["boxes"] += len(study.boxes)
        counts["splits"][study.split or "none"] += 1
        counts["views"].update(film.view for film in study.films)
        counts["sections"].update(list(study.sections))
        for labels in study.labels:
            counts["labels"].update(f"{labels.provenance} | {name} | {value}" for name, value in labels.values.items())
        yield study_to_json(study)


def _read_studies(path: Path) -> Iterator[Study]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield study_from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path} line {number} is no study: run chestx_jax.prepare again.") from error
