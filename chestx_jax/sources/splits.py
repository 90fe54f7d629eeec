"""Splits by patient, also across sets that share patients.

The patient's key has a prefix that sets of the same patients share: NIH ChestX-ray14 and, where its mapping is given,
RSNA; MIMIC-CXR and MS-CXR-T; CheXpert and CheXpert Plus. SIIM, and RSNA without the mapping, are made of NIH films too,
but do not say of which patients: `check_disjoint` refuses to have them on one side of a split and NIH's films on
another.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from chestx_jax.errors import UserError
from chestx_jax.sources.study import Split, Study

_SHARED_FILMS = ("nih", "rsna", "siim")


def complete_split(patient: str, given: Split, validation: float = 0.1, test: float = 0.1) -> Split:
    """The split of a patient in sets that lack some: `validation` and `test` are the shares of the patients taken for
    them, 0 where the set has that split itself. What is given as test or validation stays; of the others a hash of the
    patient's key decides, so that every set that shares the patient agrees."""
    if given in ("validation", "test"):
        return given
    place = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") / 2**64
    if not given and place >= 1 - test:
        return "test"
    return "validation" if place < validation else "train"


def with_splits(studies: Sequence[Study]) -> list[Study]:
    """The studies, each with a split: a tenth of the patients is taken for each of validation and test that the set
    does not have. Raises UserError as `check_disjoint` does."""
    given = {study.split for study in studies}
    shares = {name: 0.0 if name in given else 0.1 for name in ("validation", "test")}
    studies = [replace(study, split=complete_split(study.patient, study.split, **shares)) for study in studies]
    check_disjoint(studies)
    return studies


def check_disjoint(studies: Iterable[Study]) -> None:
    """Raise UserError where a patient stands on two sides of a split, or may: where films of NIH whose patients are not
    known (SIIM, RSNA without its mapping) are on another side than films of NIH's sets."""
    sides: dict[str, tuple[Split, str]] = {}
    families: dict[str, dict[Split, str]] = {"known": {}, "unknown": {}}
    for study in studies:
        split, name = sides.setdefault(study.patient, (study.split, study.source))
        if split != study.split:
            raise UserError(
                f"Patient {study.patient} is in {split or 'no'} split of {name} and in {study.split or 'no'} split of "
                f"{study.source}: give the patient one split in both."
            )
        if study.source in _SHARED_FILMS:
            families["known" if study.patient.startswith("nih:") else "unknown"][study.split] = study.source
    known, unknown = families["known"], families["unknown"]
    for split, name in unknown.items():
        others = {other: source for other, source in known.items() if other != split}
        if others:
            other, source = next(iter(others.items()))
            raise UserError(
                f"Films of {name} in {split or 'no'} split may be those of {source} in {other or 'no'} split, all "
                "being NIH's: leave one of the sets out."
            )
