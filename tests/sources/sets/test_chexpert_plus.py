"""CheXpert Plus: exactly the studies of a small folder."""

from tests.helpers.raw_sets import write_chexpert_plus
from tests.helpers.studies import brief, read_all


def test_studies_of_a_folder(tmp_path):
    studies, problems = read_all("chexpert_plus", write_chexpert_plus(tmp_path / "raw"))
    edema = {f"chexbert {part}": {"Edema": 1} for part in ("impression", "findings", "report")}
    root = "PNG/train/patient00005/study2"
    assert list(map(brief, studies)) == [
        (
            "chexpert:patient00005", "patient00005/study2", 2, "train",
            [(f"{root}/view1_frontal.png", "PA"), (f"{root}/view2_lateral.png", "lateral")],
            {"narrative": "CHEST", "impression": "1. EDEMA."}, edema,
        ),
        ("chexpert:patient00005", "patient00005/study1", 1, "train", [], {"findings": "Clear lungs."}, {}),
    ]  # fmt: skip
    assert [study.report for study in studies] == [
        "NARRATIVE:\nCHEST 1/2/2001 IMPRESSION: 1. EDEMA.",
        "FINDINGS: Clear lungs.",
    ]
    assert problems.skipped == {"neither a film nor a report": 1}
    assert problems.noted == {
        "films of a study with different texts": 1,
        "a film is missing": 2,
        "no record of labels": 3,
    }
