"""Prepared folders of made-up studies: the phantom's cases with reports in many words, and films of noise."""

from dataclasses import replace

import numpy as np

from chestx_jax import files
from chestx_jax.phantom.cases import draw_case, draw_follow_up
from chestx_jax.phantom.finding import CHANGES
from chestx_jax.phantom.text.reports import write_reports
from chestx_jax.sources.reports import named_sections
from chestx_jax.sources.study import Film, Study, study_to_json
from tests.helpers.raw_sets import write_film


def make_study(id, report, *, patient="", source="openi", order=None, split="", films=(), **fields):
    """A study with a report."""
    sections = named_sections(report)
    patient = patient or f"{source}:{id}"
    return Study(source, patient, id, order, split, tuple(films), report, sections, **fields)


def made_up_studies(count, follow_ups=0, source="openi", seed=0):
    """`count` patients with a study each, and `follow_ups` with two."""
    rng = np.random.default_rng(seed)
    studies = []
    for number in range(count + follow_ups):
        patient = f"{source}:{number}"
        if number < count:
            case = draw_case(rng, patient)
        else:
            case = draw_follow_up(rng, patient, "Pleural Effusion", CHANGES[number % 3])
        for order, report in enumerate(write_reports(case, rng)):
            studies.append(make_study(f"s{number}-{order}", report, patient=patient, source=source, order=order))
    return studies


def write_prepared(folder, studies, films=False):
    """A folder as `chestx_jax.prepare` leaves it; with `films` each study has a frontal and a lateral one."""
    if films:
        for name in ("PA", "lateral"):
            write_film(folder / f"films/{name}.png", seed=len(name), size=(32, 32))
        shown = tuple(Film(view, f"films/{view}.png", view) for view in ("lateral", "PA"))
        studies = [replace(study, films=shown) for study in studies]
    files.write_json_lines(folder / "studies.jsonl", map(study_to_json, studies))
    return folder
