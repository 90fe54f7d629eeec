"""The builders of tensorflow-datasets make of each set what its reader reads, without tensorflow.

tfds' own `DatasetBuilderTestCase` needs tensorflow; this is its check of a tiny folder in the real layout.
"""

import io
import subprocess
import sys

import pytest
from PIL import Image

from chestx_jax.errors import UserError
from chestx_jax.sources.catalog import read_studies
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.splits import with_splits
from tests.helpers import raw_sets

pytest.importorskip("importlib_resources", reason="tensorflow-datasets needs it")

SETS = {
    "nih": raw_sets.write_nih,
    "openi": raw_sets.write_openi,
    "mimic_cxr": raw_sets.write_mimic_cxr,
    "ms_cxr_t": raw_sets.write_ms_cxr_t,
    "chexpert": raw_sets.write_chexpert,
    "chexpert_plus": raw_sets.write_chexpert_plus,
    "rsna": raw_sets.write_rsna,
    "siim": raw_sets.write_siim,
    "vindr": raw_sets.write_vindr,
    "padchest": raw_sets.write_padchest,
    "rexgradient": raw_sets.write_rexgradient,
}


@pytest.fixture(scope="module")
def tfds():
    return pytest.importorskip("tensorflow_datasets")


def build(tfds, name, folder):
    from chestx_jax.sources import tfds_builder

    dataset = tfds_builder.builder(name, folder / "data")
    dataset.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder / "raw"))
    return dataset


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_built_as_it_is_read(name, tmp_path, tfds):
    SETS[name](tmp_path / "raw")
    dataset = build(tfds, name, tmp_path)
    studies = with_splits(list(read_studies(name, tmp_path / "raw", Problems())))
    assert {split: info.num_examples for split, info in dataset.info.splits.items()} == {
        split: sum(study.split == split for study in studies) for split in {study.split for study in studies}
    }
    by_key = {(study.patient, study.id): study for study in studies}
    for split in dataset.info.splits:
        for example in dataset.as_data_source(split=split):
            study = by_key.pop((example["patient"].decode(), example["study"].decode()))
            assert study.split == split
            assert example["report"].decode() == study.report
            assert [film["id"].decode() for film in _rows(example["films"])] == [film.id for film in study.films]
            assert len(_rows(example["boxes"])) == len(study.boxes)
            values = {
                (e["provenance"].decode(), e["label"].decode()): int(e["value"]) for e in _rows(example["labels"])
            }
            assert values == {
                (labels.provenance, label): -2 if value is None else value
                for labels in study.labels
                for label, value in labels.values.items()
            }
            for row, film in zip(_rows(example["films"]), study.films, strict=True):
                assert row["image"] == (tmp_path / "raw" / film.path).read_bytes()
    assert not by_key
    assert "tensorflow" not in sys.modules


def _rows(columns):
    """A sequence of dicts, which comes as a dict of columns."""
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_grain_takes_the_studies(tmp_path, tfds):
    import grain

    raw_sets.write_nih(tmp_path / "raw")
    source = build(tfds, "nih", tmp_path).as_data_source(split="train")
    shuffled = grain.MapDataset.source(source).shuffle(seed=1).map(lambda study: study["study"])
    assert sorted(shuffled) == sorted(study["study"] for study in source)
    (film,) = source[0]["films"]["image"]
    assert Image.open(io.BytesIO(film)).size == (24, 20)


def test_an_unknown_set_is_named(tmp_path, tfds):
    from chestx_jax.sources import tfds_builder

    with pytest.raises(UserError, match="did you mean 'nih'"):
        tfds_builder.builder("nihh", tmp_path)


def test_sources_are_read_without_tensorflow_datasets():
    code = "import sys, chestx_jax.sources.prepare; print('tensorflow_datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
