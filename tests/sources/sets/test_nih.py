"""NIH ChestX-ray14: exactly the studies of a small folder, and the counts of a real one."""

from collections import Counter

import pytest

from chestx_jax.sources.sets.nih import LABELS
from chestx_jax.sources.study import Box, Film, Study
from tests.helpers.raw_sets import write_nih
from tests.helpers.studies import labels, read_all

NAMES = (*LABELS, "No Finding")


@pytest.mark.parametrize("old", [False, True])
def test_studies_of_a_folder(tmp_path, old):
    studies, problems = read_all("nih", write_nih(tmp_path / "nih", old))
    box = ("00000007_000.png", "Infiltrate")
    first, second = ("images_001/images", "images_002/images") if old else ("images", "images")
    assert studies == [
        Study(
            "nih", "nih:7", "00000007_000", 0, "test",
            (Film("00000007_000.png", f"{first}/00000007_000.png", "PA"),),
            labels=(labels("nih", NAMES, 0, Infiltration=1),),
            boxes=(
                Box(*box, 100.5, 200, 300, 400, (1024, 1024), "radiologist"),
                Box(*box, 600, 200, 50, 60, (1024, 1024), "radiologist"),
            ),
        ),
        Study(
            "nih", "nih:13", "00000013_000", 0, "train",
            (Film("00000013_000.png", f"{second}/00000013_000.png", "PA"),),
            labels=(labels("nih", NAMES, 0, No_Finding=1),),
        ),
        Study(
            "nih", "nih:13", "00000013_001", 1, "train",
            (Film("00000013_001.png", f"{first}/00000013_001.png", "AP"),),
            labels=(labels("nih", NAMES, 0, Effusion=1, Mass=1),),
        ),
    ]  # fmt: skip
    assert problems.skipped == {
        "the film is missing": 1,
        "a label that the set does not have": 1,
        "no patient number": 1,
    }
    assert problems.noted == {"a box without an area": 1, "Patient ID is no number": 1}
    assert problems.first["the film is missing"].endswith("row 4 (00000013_002.png)")


def test_counts_of_the_real_films(shared_data):
    studies, problems = read_all("nih", shared_data / "nih")
    assert problems.skipped == problems.noted == {}
    assert Counter(study.split for study in studies) == {"train": 941, "test": 295}
    assert Counter(study.films[0].view for study in studies) == {"PA": 759, "AP": 477}
    patients = {split: {s.patient for s in studies if s.split == split} for split in ("train", "test")}
    assert not patients["train"] & patients["test"]
    counts = Counter(name for study in studies for name, value in study.labels[0].values.items() if value)
    assert counts == {
        "No Finding": 462, "Pneumonia": 353, "Infiltration": 237, "Atelectasis": 142, "Effusion": 131, "Edema": 87,
        "Nodule": 84, "Consolidation": 82, "Mass": 68, "Pleural_Thickening": 68, "Fibrosis": 58, "Cardiomegaly": 56,
        "Pneumothorax": 47, "Emphysema": 44, "Hernia": 25,
    }  # fmt: skip
