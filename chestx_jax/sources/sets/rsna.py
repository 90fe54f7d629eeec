"""RSNA Pneumonia Detection Challenge 2018: 29,684 NIH films as DICOM, with readers' boxes of opacities.

Layout: `stage_2_train_labels.csv`, `stage_2_detailed_class_info.csv`, `stage_2_train_images/<patientId>.dcm`,
`stage_2_test_images/` without labels. `patientId` is a film: who the patient is stands in the challenge's
`pneumonia-challenge-dataset-mappings_2018.json`, and the split in NIH's `test_list.txt` and `train_val_list.txt`, both
put into the folder by hand (Shih et al. 2019).
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chestx_jax import files
from chestx_jax.sources.folders import files_below, find, require
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.sets import nih
from chestx_jax.sources.study import Box, Film, Labels, Study
from chestx_jax.sources.tables import number, read_table

MARKERS = ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv")
_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
_FRAME = (1024, 1024)
_SIDES = ("x", "y", "width", "height")


def read(raw: Path, problems: Problems) -> Iterator[Study]:
    """Films in the order of their names; those of the test folder have no labels. Without the mapping a film is its own
    patient and has no split (`sources/splits.py` says what that means)."""
    table = require(raw, "stage_2_train_labels.csv")
    targets: dict[str, bool] = {}
    boxes: dict[str, list[Box]] = defaultdict(list)
    for row in read_table(table, ("patientId", *_SIDES, "Target"), problems):
        target = number(row, "Target", problems)
        left, top, width, height = (number(row, side, problems) for side in _SIDES)
        if target not in (0, 1):
            problems.note("Target is neither 0 nor 1", row.where, "the row is passed over")
            continue
        film = row["patientId"]
        targets[film] = target == 1  # the rows of a film, one a box, agree
        if target == 1 and left is not None and top is not None and width and height:
            boxes[film].append(Box(film, "Lung Opacity", left, top, width, height, _FRAME, "rsna"))
    classes = _classes(raw, problems)
    patients = _patients(raw, problems)
    splits = nih.patient_splits(raw)
    paths = {
        stem: path
        for folder in ("stage_2_train_images", "stage_2_test_images")
        if (found := find(raw, folder))
        for stem, path in files_below(found, raw, (".dcm", ".png", ".jpg", ".jpeg"))
    }
    for film in sorted(paths.keys() | targets.keys()):
        if film not in paths:
            problems.skip("the film is missing", f"{table.name} ({film})")
            continue
        patient = patients.get(film)
        yield Study(
            source="rsna",
            patient=f"rsna:{film}" if patient is None else nih.patient_key(patient),
            id=film,
            split="" if patient is None else splits.get(patient, ""),
            films=(Film(film, paths[film], "frontal"),),
            labels=_labels(targets[film], classes.get(film)) if film in targets else (),
            boxes=tuple(boxes[film]),
        )


def _labels(target: bool, kind: str | None) -> tuple[Labels, ...]:
    """A target is an opacity suspicious of pneumonia; only a film of class Normal has no finding."""
    values: dict[str, int | None] = {"Pneumonia": int(target), "Lung Opacity": int(target)}
    return (Labels("rsna", {**values, "No Finding": None if kind is None else int(kind == "Normal")}),)


def _classes(raw: Path, problems: Problems) -> dict[str, str]:
    path = find(raw, "stage_2_detailed_class_info.csv")
    if path is None:
        problems.note("stage_2_detailed_class_info.csv is missing", str(raw), "normal films are not known")
        return {}
    return {row["patientId"]: row["class"] for row in read_table(path, ("patientId", "class"), problems)}


def _patients(raw: Path, problems: Problems) -> dict[str, int]:
    """NIH's patient of each film, by the challenge's mapping of names."""
    path = find(raw, _MAPPING)
    if path is None:
        problems.note(f"{_MAPPING} is missing", str(raw), "films have neither patient nor split")
        return {}
    records: Any = files.read_json(path, "download it again")
    patients = {}
    for i, record in enumerate(records if isinstance(records, list) else ()):
        try:
            patient = nih.patient_of(record["img_id"])
            patients[record["subset_img_id"]] = patient
        except (TypeError, KeyError, AttributeError):
            problems.note("no pair of names", f"{path.name} entry {i}", "it is passed over")
    return {film: patient for film, patient in patients.items() if patient is not None}
