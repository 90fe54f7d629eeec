"""VinDr-CXR 1.0.0 and its Kaggle form: 18,000 frontal films as DICOM, each read by three of 17 radiologists.

Layout: `annotations/{annotations,image_labels}_{train,test}.csv`, `{train,test}/<image>.dicom`; Kaggle's `train.csv`
with `train/` (Nguyen et al. 2022, https://physionet.org/content/vindr-cxr/1.0.0/). No reports, patients or views.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from chestx_jax.sources.folders import files_below, find
from chestx_jax.sources.labels import label_values
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.study import Box, Film, Labels, Split, Study
from chestx_jax.sources.tables import number, read_header, read_table

MARKERS = ("annotations_train.csv", "train.csv")
LOCAL = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration",
    "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis",
)  # fmt: skip
_SIDES = ("x_min", "y_min", "x_max", "y_max")


def read(raw: Path, problems: Problems) -> Iterator[Study]:
    """Films of the training, then of the test folder in the order of their names; a label set for each reader. Boxes
    are in pixels of the file. Kaggle's form has no table of labels: a reader's labels are the classes of the boxes."""
    splits: tuple[tuple[str, Split], ...] = (("train", "train"), ("test", "test"))
    for name, split in splits:
        table = find(raw, f"annotations_{name}.csv", f"{name}.csv")
        if table is None:
            problems.note(f"annotations_{name}.csv is missing", str(raw), f"there are no studies of {name}")
            continue
        boxes, readings = _boxes(table, problems)
        labels = find(raw, f"image_labels_{name}.csv")
        by_film = _labels(labels, problems) if labels else readings
        folder = find(raw, f"{name}/")
        paths = dict(files_below(folder, raw, (".dicom", ".dcm", ".png", ".jpg"))) if folder else {}
        for film in sorted(by_film.keys() | readings.keys() | paths.keys()):
            if film not in paths:
                problems.skip("the film is missing", f"{table.name} ({film})")
                continue
            yield Study(
                source="vindr",
                patient=f"vindr:{film}",
                id=film,
                split=split,
                films=(Film(film, paths[film], "PA"),),
                labels=tuple(by_film.get(film, ())),
                boxes=tuple(boxes.get(film, ())),
            )


def _boxes(table: Path, problems: Problems) -> tuple[dict[str, list[Box]], dict[str, list[Labels]]]:
    """Boxes by film, and what each reader named on it."""
    boxes: dict[str, list[Box]] = defaultdict(list)
    named: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in read_table(table, ("image_id", "class_name", *_SIDES), problems, ("rad_id",)):
        film, reader = row["image_id"], f"vindr {row['rad_id'] or 'consensus'}"
        named[film][reader].add(row["class_name"])
        left, top, right, bottom = (number(row, side, problems) for side in _SIDES)
        if left is None or top is None or right is None or bottom is None:
            continue
        if right <= left or bottom <= top:
            problems.note("a box without an area", row.where, "the box is left out")
            continue
        boxes[film].append(Box(film, row["class_name"], left, top, right - left, bottom - top, None, reader))
    readings = {
        film: [
            Labels(reader, {name: int(name in classes) for name in (*LOCAL, "No finding")})
            for reader, classes in sorted(readers.items())
        ]
        for film, readers in named.items()
    }
    return boxes, readings


def _labels(table: Path, problems: Problems) -> dict[str, list[Labels]]:
    names = [name for name in read_header(table) if name not in ("image_id", "rad_id")]
    labels: dict[str, list[Labels]] = defaultdict(list)
    for row in read_table(table, ("image_id", *names), problems, ("rad_id",)):
        reader = f"vindr {row['rad_id'] or 'consensus'}"
        labels[row["image_id"]].append(Labels(reader, label_values(row, names, problems)))
    return {film: sorted(readers, key=lambda reader: reader.provenance) for film, readers in labels.items()}
