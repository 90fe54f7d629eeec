"""PadChest: exactly the studies of a small folder."""

from tests.helpers.raw_sets import write_padchest
from tests.helpers.studies import brief, read_all


def test_studies_of_a_folder(tmp_path):
    studies, problems = read_all("padchest", write_padchest(tmp_path / "raw"))
    named = {"padchest Physician": {"cardiomegaly": 1, "pleural effusion": 1}}
    assert list(map(brief, studies)) == [
        ("padchest:p1", "s1", 0, "", [("3/c.png", "AP")], {}, {"padchest RNN_model": {"normal": 1}}),
        ("padchest:p1", "s2", 2, "", [("0/a.png", "PA"), ("0/b.png", "lateral")], {}, named),
        ("padchest:p2", "s4", 0, "", [("0/e.png", "other")], {}, {}),
    ]
    assert [study.report for study in studies] == ["normal", "cardiomegali", "fractur"]
    assert problems.skipped == {"no film": 2}
    assert problems.noted == {
        "a film that the set excludes": 1,
        "a film is missing": 1,
        "Labels is no list of names": 1,
    }
