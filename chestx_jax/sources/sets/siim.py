"""SIIM-ACR Pneumothorax Segmentation 2019: 12,047 NIH films as DICOM, with run-length masks of pneumothoraces.

Layout: `train-rle.csv` with `dicom-images-train/<study>/<series>/<image>.dcm` (stage 1; `dicom-images-test/` without
labels), or `stage_2_train.csv` with `stage_2_images/`. The set does not say which patient of NIH a film shows.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int

from chestx_jax.sources.folders import files_below, require
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.study import Box, Film, Labels, Study
from chestx_jax.sources.tables import read_table

MARKERS = ("train-rle.csv", "stage_2_train.csv")
_SIDE = 1024


def read(raw: Path, problems: Problems) -> Iterator[Study]:
    """Films in the order of their names, a box around each region; films without a row have no labels. A film is its
    own patient and has no split (`sources/splits.py` says what that means)."""
    table = require(raw, *MARKERS)
    positive: dict[str, bool] = {}
    boxes: dict[str, list[Box]] = defaultdict(list)
    for row in read_table(table, ("ImageId", "EncodedPixels"), problems):
        film, runs = row["ImageId"], row["EncodedPixels"]
        masked = runs not in ("-1", "")
        positive[film] = positive.get(film, False) or masked
        if masked:
            sides = run_length_box(runs)
            if sides is None:
                problems.note("a mask that is no list of runs", row.where, "the film goes without its box")
            else:
                boxes[film].append(Box(film, "Pneumothorax", *sides, (_SIDE, _SIDE), "siim"))
    paths = dict(files_below(raw, raw, (".dcm", ".png", ".jpg", ".jpeg")))
    for film in sorted(paths.keys() | positive.keys()):
        if film not in paths:
            problems.skip("the film is missing", f"{table.name} ({film})")
            continue
        values: dict[str, int | None] = {"Pneumothorax": int(positive.get(film, False))}
        yield Study(
            source="siim",
            patient=f"siim:{film}",
            id=film,
            films=(Film(film, paths[film], "frontal"),),
            labels=(Labels("siim", values),) if film in positive else (),
            boxes=tuple(boxes[film]),
        )


def run_length_box(runs: str, side: int = _SIDE) -> tuple[float, float, float, float] | None:
    """Left, top, width and height around a mask: pairs of a distance from the end of the run before and a length, over
    the pixels of a square film column by column. None where the text is none of it."""
    try:
        values: Int[np.ndarray, " N"] = np.array(runs.split(), np.int64)
    except (ValueError, OverflowError):
        return None
    if values.size == 0 or values.size % 2 or (values < 0).any():
        return None
    ends = values.cumsum()[1::2]
    starts = ends - values[1::2]
    if (values[1::2] == 0).any() or ends[-1] > side * side:
        return None
    left, right = starts[0] // side, (ends[-1] - 1) // side + 1
    crosses = (starts // side != (ends - 1) // side).any()
    top, bottom = (0, side) if crosses else ((starts % side).min(), ((ends - 1) % side).max() + 1)
    return float(left), float(top), float(right - left), float(bottom - top)
