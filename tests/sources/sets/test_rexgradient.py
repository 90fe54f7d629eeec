"""ReXGradient: exactly the studies of a small folder."""

from tests.helpers.raw_sets import write_rexgradient
from tests.helpers.studies import brief, read_all


def test_studies_of_a_folder(tmp_path):
    studies, problems = read_all("rexgradient", write_rexgradient(tmp_path / "raw"))
    assert list(map(brief, studies)) == [
        (
            "rexgradient:P1", "P1/A1", 0, "train", [("deid_png/P1/A1/f3.png", "unknown")],
            {"impression": "Edema."}, {},
        ),
        (
            "rexgradient:P1", "P1/A2", 1, "train",
            [("deid_png/P1/A2/f1.png", "PA"), ("deid_png/P1/A2/f2.png", "unknown")],
            {"findings": "Clear.", "impression": "Normal."}, {},
        ),
        ("rexgradient:P4", "P4/A4", None, "validation", [], {"findings": "Effusion."}, {}),
    ]  # fmt: skip
    assert problems.skipped == {"no patient or study": 1, "neither film nor findings nor impression": 1}
    assert problems.noted == {"a film is missing": 2, "test_metadata.json is missing": 1}
