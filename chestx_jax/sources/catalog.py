"""The sets that are read, and a folder's studies."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from chestx_jax.errors import UserError, choose
from chestx_jax.sources.folders import find
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.sets import (
    chexpert,
    chexpert_plus,
    mimic_cxr,
    ms_cxr_t,
    nih,
    openi,
    padchest,
    rexgradient,
    rsna,
    siim,
    vindr,
)
from chestx_jax.sources.study import Study


@dataclass(frozen=True)
class Source:
    """A set: its reader, the files by which its folder is known, and whether its terms let third parties' services read
    it (those of credentialed sets and of sets that may not be passed on do not)."""

    read: Callable[[Path, Problems], Iterator[Study]]
    markers: tuple[str, ...]
    third_parties: bool = False


SOURCES = {
    "mimic_cxr": Source(mimic_cxr.read, mimic_cxr.MARKERS),
    "chexpert": Source(chexpert.read, chexpert.MARKERS),
    "chexpert_plus": Source(chexpert_plus.read, chexpert_plus.MARKERS),
    "ms_cxr_t": Source(ms_cxr_t.read, ms_cxr_t.MARKERS),
    "rsna": Source(rsna.read, rsna.MARKERS),
    "siim": Source(siim.read, siim.MARKERS),
    "nih": Source(nih.read, nih.MARKERS, third_parties=True),
    "openi": Source(openi.read, openi.MARKERS, third_parties=True),
    "vindr": Source(vindr.read, vindr.MARKERS),
    "padchest": Source(padchest.read, padchest.MARKERS),
    "rexgradient": Source(rexgradient.read, rexgradient.MARKERS),
}


def read_studies(name: str, raw: Path, problems: Problems) -> Iterator[Study]:
    """The studies of the set `name` in the folder `raw`, in an order that does not change.

    Raises UserError for an unknown set, a folder that is none or holds another set, and whatever its reader raises.
    """
    source = choose(SOURCES, name, "set of films")
    if not raw.is_dir():
        raise UserError(f"{raw} is not a folder: give the folder of the set {name} as --raw.")
    if find(raw, *source.markers) is None:
        others = [other for other, candidate in SOURCES.items() if find(raw, *candidate.markers)]
        hint = f"it looks like {' or '.join(others)}" if others else "half of a download may be missing"
        raise UserError(
            f"{raw} holds no {' or '.join(source.markers)}, which the set {name} has ({hint}): give the folder of the "
            "whole set as --raw."
        )
    return _distinct(source.read(raw, problems), problems)


def _distinct(studies: Iterator[Study], problems: Problems) -> Iterator[Study]:
    """The first study of each id."""
    ids = set()
    for study in studies:
        if study.id in ids:
            problems.skip("a study listed twice", f"study {study.id} of {study.patient}")
        else:
            ids.add(study.id)
            yield study
