"""VinDr-CXR: exactly the films of small folders in both forms, each reader's labels apart."""

import pytest

from chestx_jax.sources.sets.vindr import LOCAL
from chestx_jax.sources.study import Box
from tests.helpers.raw_sets import write_vindr
from tests.helpers.studies import brief, read_all


def test_films_of_a_folder(tmp_path):
    studies, problems = read_all("vindr", write_vindr(tmp_path / "raw"))
    none = {"Cardiomegaly": 0, "Nodule/Mass": 0, "Pneumonia": 0, "No finding": 0}
    readers = {"vindr R8": {**none, "Cardiomegaly": 1}, "vindr R9": {**none, "Nodule/Mass": 1, "Pneumonia": 1}}
    clear = {**none, "No finding": 1}
    assert list(map(brief, studies)) == [
        ("vindr:aa", "aa", None, "train", [("train/aa.dicom", "PA")], {}, readers),
        ("vindr:bb", "bb", None, "train", [("train/bb.dicom", "PA")], {}, {"vindr R8": clear}),
        ("vindr:dd", "dd", None, "test", [("test/dd.dicom", "PA")], {}, {"vindr consensus": clear}),
    ]
    assert problems.skipped == {"the film is missing": 1}


@pytest.mark.parametrize("kaggle", [False, True])
def test_boxes_are_in_the_pixels_of_the_file(tmp_path, kaggle):
    studies, problems = read_all("vindr", write_vindr(tmp_path / "raw", kaggle))
    assert studies[0].boxes == (
        Box("aa", "Cardiomegaly", 10, 20, 100, 200, None, "vindr R8"),
        Box("aa", "Nodule/Mass", 1.5, 2, 2, 2, None, "vindr R9"),
    )
    assert problems.noted["a box without an area"] == 1


def test_labels_of_the_form_without_a_table_of_them(tmp_path):
    studies, problems = read_all("vindr", write_vindr(tmp_path / "raw", kaggle=True))
    none = dict.fromkeys((*LOCAL, "No finding"), 0)
    assert [study.id for study in studies] == ["aa", "bb"]
    assert brief(studies[0])[-1] == {"vindr R8": {**none, "Cardiomegaly": 1}, "vindr R9": {**none, "Nodule/Mass": 1}}
    assert brief(studies[1])[-1] == {"vindr R8": {**none, "No finding": 1}}
    assert problems.skipped == {"the film is missing": 1}
