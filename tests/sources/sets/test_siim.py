"""SIIM-ACR: exactly the films of small folders of both stages; masks as boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestx_jax.sources.sets.siim import run_length_box
from chestx_jax.sources.study import Box
from tests.helpers.raw_sets import write_siim
from tests.helpers.studies import brief, read_all


@pytest.mark.parametrize("stage", [1, 2])
def test_films_of_a_folder(tmp_path, stage):
    studies, problems = read_all("siim", write_siim(tmp_path / "raw", stage))
    folders = [f"dicom-images-train/1.{i}/1.{i}.1" if stage == 1 else "stage_2_images" for i in range(4)]
    present, absent = {"siim": {"Pneumothorax": 1}}, {"siim": {"Pneumothorax": 0}}
    assert list(map(brief, studies)) == [
        (f"siim:{film}", film, None, "", [(f"{folder}/{film}.dcm", "frontal")], {}, known)
        for film, folder, known in zip(
            ("1.2.a", "1.2.b", "1.2.d", "1.2.e"), folders, (present, absent, present, {}), strict=True
        )
    ]
    assert studies[0].boxes == (
        Box("1.2.a", "Pneumothorax", 2, 10, 2, 3, (1024, 1024), "siim"),
        Box("1.2.a", "Pneumothorax", 0, 5, 1, 1, (1024, 1024), "siim"),
    )
    assert problems.skipped == {"the film is missing": 1}
    assert problems.noted == {"a mask that is no list of runs": 1}


@given(st.lists(st.booleans(), min_size=64, max_size=64).filter(any))
def test_box_of_a_mask_is_that_of_its_pixels(pixels):
    side = 8
    flat = np.array([0, *pixels, 0], int)
    starts, ends = np.flatnonzero(np.diff(flat) == 1), np.flatnonzero(np.diff(flat) == -1)
    distances = starts - np.concatenate([[0], ends[:-1]])
    runs = " ".join(f"{distance} {end - start}" for distance, start, end in zip(distances, starts, ends, strict=True))
    columns, rows = np.nonzero(flat[1:-1].reshape(side, side))
    expected = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert run_length_box(runs, side) == expected


@pytest.mark.parametrize("runs", ["", "1", "1 2 3", "a b", "-1 4", "1 0", "1048575 2", "1.5 2"])
def test_no_runs_have_no_box(runs):
    assert run_length_box(runs) is None
