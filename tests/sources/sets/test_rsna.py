"""RSNA: exactly the films of a small folder, with NIH's patients and splits where the mapping is given."""

import pytest

from chestx_jax.sources.study import Box
from tests.helpers.raw_sets import write_rsna
from tests.helpers.studies import brief, read_all


@pytest.mark.parametrize("mapped", [True, False])
def test_films_of_a_folder(tmp_path, mapped):
    studies, problems = read_all("rsna", write_rsna(tmp_path / "raw", mapped))
    place = [("nih:13", "train"), ("nih:7", "test"), ("nih:13", "train")]
    if not mapped:
        place = [("rsna:aaaa-1", ""), ("rsna:bbbb-2", ""), ("rsna:dddd-4", "")]
    opaque, normal = {"Pneumonia": 1, "Lung Opacity": 1, "No Finding": 0}, {"Pneumonia": 0, "Lung Opacity": 0}
    assert list(map(brief, studies)) == [
        (
            place[0][0], "aaaa-1", None, place[0][1],
            [("stage_2_train_images/aaaa-1.dcm", "frontal")], {}, {"rsna": opaque},
        ),
        (
            place[1][0], "bbbb-2", None, place[1][1],
            [("stage_2_train_images/bbbb-2.dcm", "frontal")], {}, {"rsna": {**normal, "No Finding": 1}},
        ),
        (place[2][0], "dddd-4", None, place[2][1], [("stage_2_test_images/dddd-4.dcm", "frontal")], {}, {}),
    ]  # fmt: skip
    assert studies[0].boxes == (
        Box("aaaa-1", "Lung Opacity", 264, 152, 213, 379, (1024, 1024), "rsna"),
        Box("aaaa-1", "Lung Opacity", 562, 152.5, 256, 453, (1024, 1024), "rsna"),
    )
    assert problems.skipped == {"the film is missing": 1}
    name = "pneumonia-challenge-dataset-mappings_2018.json is missing"
    assert problems.noted == ({"no pair of names": 1} if mapped else {name: 1})
