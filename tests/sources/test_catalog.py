"""A folder that is not the set's, and the labels of all sets under common names."""

import random

import pytest

from chestx_jax.errors import UserError
from chestx_jax.sources.catalog import SOURCES
from chestx_jax.sources.labels import radr_labels
from chestx_jax.sources.study import study_from_json, study_to_json
from tests.helpers import raw_sets
from tests.helpers.studies import read_all
from tests.helpers.table_fuzz import damaged

WRITERS = {name: getattr(raw_sets, f"write_{name}") for name in SOURCES}


@pytest.mark.parametrize("name", SOURCES)
def test_a_folder_of_another_set_is_one_sentence(tmp_path, name):
    other = "nih" if name != "nih" else "openi"
    WRITERS[other](tmp_path / "raw")
    with pytest.raises(UserError, match=rf"holds no .* the set {name} has \(it looks like {other}\)"):
        read_all(name, tmp_path / "raw")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="half of a download may be missing"):
        read_all(name, tmp_path / "empty")
    with pytest.raises(UserError, match="is not a folder"):
        read_all(name, tmp_path / "none")


def test_an_unknown_set_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="did you mean 'nih'"):
        read_all("nhi", tmp_path)


@pytest.mark.parametrize("name", SOURCES)
def test_studies_there_and_back(tmp_path, name):
    studies, _ = read_all(name, WRITERS[name](tmp_path / "raw"))
    assert studies
    assert len({study.id for study in studies}) == len(studies)
    assert [study_from_json(study_to_json(study)) for study in studies] == studies
    for study in studies:
        for film in study.films:
            assert (tmp_path / "raw" / film.path).is_file()
        films = {film.id for film in study.films}
        assert {box.film for box in study.boxes} <= films


def test_a_study_listed_twice_counts_once(tmp_path):
    raw = WRITERS["nih"](tmp_path / "raw")
    studies, _ = read_all("nih", raw)
    table = raw / "Data_Entry_2017_v2020.csv"
    header, *rows = table.read_text().splitlines()
    raw_sets.write_table(table, "\n".join([header, *rows, rows[0]]))
    again, problems = read_all("nih", raw)
    assert again == studies
    assert problems.skipped["a study listed twice"] == 1


@pytest.mark.parametrize("name", SOURCES)
def test_damaged_folders_are_studies_or_one_sentence(tmp_path, name):
    raw = WRITERS[name](tmp_path / "raw")
    kinds = (".csv", ".gz", ".json", ".txt", ".xml", ".zip", ".tgz")
    contents = {path: path.read_bytes() for path in sorted(raw.rglob("*")) if path.suffix in kinds}
    for seed in range(40):
        rng = random.Random(f"{name} {seed}")
        path = rng.choice(sorted(contents))
        path.unlink()
        if seed % 10:
            path.write_bytes(damaged(contents[path], rng))
        try:
            studies, _ = read_all(name, raw)
        except UserError:
            pass
        else:
            assert len({study.id for study in studies}) == len(studies)
            assert [study_from_json(study_to_json(study)) for study in studies] == studies
        path.write_bytes(contents[path])


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ({"Effusion": 1, "Edema": 0}, {"Pleural Effusion": 1, "Edema": 0}),
        ({"Nodule": 0, "Mass": 1}, {"Lung Lesion": 1}),
        ({"Nodule": 0, "Mass": None}, {"Lung Lesion": None}),
        ({"Nodule": -1, "Mass": None}, {"Lung Lesion": -1}),
        ({"Nodule": -1, "Mass": 1}, {"Lung Lesion": 1}),
        ({"Infiltration": 0, "Edema": 1}, {"Lung Opacity": 1, "Edema": 1}),
        ({"Lung Opacity": 0, "Edema": 1}, {"Lung Opacity": None, "Edema": 1}),
        ({"Lung Opacity": None, "Edema": 1}, {"Lung Opacity": None, "Edema": 1}),
        ({"Hernia": 1}, {}),
    ],
)
def test_labels_under_common_names(values, labels):
    assert radr_labels(values) == labels
