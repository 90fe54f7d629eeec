"""CheXpert: exactly the studies of a small folder."""

import pytest

from chestx_jax.sources.labels import CHEXPERT
from tests.helpers.raw_sets import write_chexpert
from tests.helpers.studies import brief, read_all


@pytest.mark.parametrize("gzipped", [False, True])
def test_studies_of_a_folder(tmp_path, gzipped):
    studies, problems = read_all("chexpert", write_chexpert(tmp_path / "raw", gzipped))
    root, none = "CheXpert-v1.0-small", dict.fromkeys(CHEXPERT, 0)
    assert list(map(brief, studies)) == [
        (
            "chexpert:patient00001", "patient00001/study1", None, "train",
            [
                (f"{root}/train/patient00001/study1/view1_frontal.jpg", "AP"),
                (f"{root}/train/patient00001/study1/view2_lateral.jpg", "lateral"),
            ],
            {}, {"chexpert": {"Lung Opacity": 1, "Consolidation": -1, "Pneumothorax": 0}},
        ),
        (
            "chexpert:patient00002", "patient00002/study10", None, "train",
            [(f"{root}/train/patient00002/study10/view1_lateral.jpg", "lateral")],
            {}, {},
        ),
        (
            "chexpert:patient64541", "patient64541/study1", None, "validation",
            [(f"{root}/valid/patient64541/study1/view1_frontal.jpg", "AP")],
            {}, {"radiologist": {**none, "Support Devices": 1}},
        ),
        (
            "chexpert:patient64741", "patient64741/study1", None, "test",
            [
                (f"{root}/test/patient64741/study1/view1_frontal.jpg", "frontal"),
                (f"{root}/test/patient64741/study1/view2_lateral.jpg", "lateral"),
            ],
            {}, {"radiologist": none},
        ),
    ]  # fmt: skip
    assert problems.skipped == {"no film": 1}
    assert problems.noted == {"a film is missing": 1, "no path of a study": 1}
