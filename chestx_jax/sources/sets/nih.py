"""NIH ChestX-ray14: 112,120 frontal PNG films of 30,805 patients, labels text-mined from reports that are not public.

Layout: `Data_Entry_2017*.csv`, `BBox_List_2017.csv`, `train_val_list.txt`, `test_list.txt`, `images/` or
`images_001/images/` … (Wang et al. 2017, https://nihcc.app.box.com/v/ChestXray-NIHCC). Every film is a study.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from chestx_jax.sources.folders import find, require
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.study import Box, Film, Labels, Split, Study
from chestx_jax.sources.tables import number, read_names, read_table
from chestx_jax.sources.views import view_of

MARKERS = ("Data_Entry_2017*.csv",)
LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
_COLUMNS = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "View Position")
_FRAME = (1024, 1024)  # pixels in which boxes are drawn, also where films were made smaller


def read(raw: Path, problems: Problems) -> Iterator[Study]:
    """Studies by patient and follow-up number. Films without a patient number, a file or a known label are left out."""
    table = require(raw, *MARKERS)
    root = table.parent
    films = _film_paths(root, raw)
    boxes = _boxes(root, problems)
    splits = patient_splits(root)
    studies = []
    for row in read_table(table, _COLUMNS, problems):
        name = row["Image Index"]
        patient, follow_up = number(row, "Patient ID", problems), number(row, "Follow-up #", problems)
        named = [label.strip() for label in row["Finding Labels"].split("|")]
        unknown = [label for label in named if label not in (*LABELS, "No Finding")]
        if patient is None:
            problems.skip("no patient number", row.where)
        elif name not in films:
            problems.skip("the film is missing", f"{row.where} ({name})")
        elif unknown:
            problems.skip("a label that the set does not have", f"{row.where} ({unknown[0]!r})")
        else:
            values: dict[str, int | None] = {label: int(label in named) for label in LABELS}
            study = Study(
                source="nih",
                patient=patient_key(int(patient)),
                id=name.removesuffix(".png"),
                order=None if follow_up is None else int(follow_up),
                split=splits.get(int(patient), ""),
                films=(Film(name, films[name], view_of(row["View Position"])),),
                labels=(Labels("nih", {**values, "No Finding": int(named == ["No Finding"])}),),
                boxes=tuple(boxes.get(name, ())),
            )
            studies.append((int(patient), study.order or 0, name, study))
    yield from (study for *_, study in sorted(studies, key=lambda item: item[:3]))


def patient_key(patient: int) -> str:
    """The patient of every set that is made of NIH films."""
    return f"nih:{patient}"


def patient_of(film: str) -> int | None:
    """The patient number that begins a film's name, `00000013_005.png`."""
    digits = film.partition("_")[0]
    return int(digits) if digits.isdigit() else None


def patient_splits(root: Path) -> dict[int, Split]:
    """The split of each patient by the two lists in a folder; a patient in both is of the test split."""
    splits: dict[int, Split] = {}
    lists: tuple[tuple[str, Split], ...] = (("train_val_list*.txt", "train"), ("test_list*.txt", "test"))
    for pattern, split in lists:
        path = find(root, pattern)
        patients = [patient_of(name) for name in read_names(path)] if path else []
        splits.update({patient: split for patient in patients if patient is not None})
    return splits


def _film_paths(root: Path, raw: Path) -> dict[str, str]:
    """Each film's path relative to `raw`, by its name."""
    paths = {}
    for folder in (*sorted(root.glob("images*")), *sorted(root.glob("images*/images"))):
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".png"))
        paths.update({name: (folder / name).relative_to(raw).as_posix() for name in names})
    return paths


def _boxes(root: Path, problems: Problems) -> dict[str, list[Box]]:
    """Boxes by film; the table names a column by the opening bracket of `Bbox [x,y,w,h]`."""
    boxes: dict[str, list[Box]] = defaultdict(list)
    path = find(root, "BBox_List_2017*.csv")
    if path is None:
        problems.note("BBox_List_2017.csv is missing", str(root), "no film has boxes")
        return boxes
    sides = ("Bbox [x", "y", "w", "h]")
    for row in read_table(path, ("Image Index", "Finding Label", *sides), problems):
        left, top, width, height = (number(row, side, problems) for side in sides)
        if left is None or top is None or width is None or height is None or width <= 0 or height <= 0:
            problems.note("a box without an area", row.where, "the box is left out")
            continue
        box = Box(row["Image Index"], row["Finding Label"], left, top, width, height, _FRAME, "radiologist")
        boxes[box.film].append(box)
    return boxes
