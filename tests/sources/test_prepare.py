"""Films are made once, alike by any number of workers, and a killed command goes on where it was."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from chestx_jax import files
from chestx_jax.errors import UserError
from chestx_jax.sources.film_worker import FilmJob, FilmResult, convert_film, original_size, small_film
from chestx_jax.sources.prepare import PrepareConfig, prepare, read_prepared, small_path
from chestx_jax.tokens.pixels import grey_as_rgb
from tests.helpers import raw_sets
from tests.helpers.dicom import write_dicom
from tests.helpers.paths import ROOT
from tests.helpers.studies import brief, read_all


def run(raw, out, workers=2, **fields):
    console = io.StringIO()
    return prepare(
        PrepareConfig(**{"source": "nih", "size": 32, **fields}), raw, out, workers, console
    ), console.getvalue()


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_prepared_folder_holds_the_studies_of_the_raw_one(tmp_path):
    raw = raw_sets.write_mimic_cxr(tmp_path / "raw")
    about, console = run(raw, tmp_path / "out", source="mimic_cxr")
    studies, prepared = read_all("mimic_cxr", raw)[0], list(read_prepared(tmp_path / "out"))
    kept = {"PA", "AP"}
    assert [brief(study)[:4] + brief(study)[5:] for study in prepared] == [
        brief(study)[:4] + brief(study)[5:] for study in studies
    ]
    assert [study.report for study in prepared] == [study.report for study in studies]
    assert [[(film.id, film.view, film.path) for film in study.films] for study in prepared] == [
        [(film.id, film.view, small_path(film.path)) for film in study.films if film.view in kept] for study in studies
    ]
    assert about["films"] == 3
    assert about["text only"] == 2  # one without a film, one whose only film's view is unknown
    assert about["films left out by view"] == {"lateral": 1, "unknown": 1}
    assert about["splits"] == {"train": 3, "validation": 2}
    assert about["labels"]["chexpert | Pneumonia | -1"] == 1
    assert about["skipped"]["neither a film nor a report"]["count"] == 1
    assert "100%" in console
    assert json.loads((tmp_path / "out/about.json").read_text()) == about


def test_the_same_bytes_whatever_the_number_of_workers(tmp_path):
    raw = raw_sets.write_nih(tmp_path / "raw")
    for workers in (1, 3):
        run(raw, tmp_path / f"out{workers}", workers)
    assert contents(tmp_path / "out1") == contents(tmp_path / "out3")
    assert len(list((tmp_path / "out1").rglob("*.png"))) == 3


@pytest.mark.parametrize(("aspect", "shape"), [("keep", (32, 20)), ("squash", (32, 32))])
def test_grey_films_are_one_channel_resized_before_they_are_coloured(tmp_path, aspect, shape):
    film = np.random.default_rng(0).integers(0, 255, (64, 40), np.uint8)
    expected = np.asarray(Image.fromarray(film).resize(shape[::-1], Image.Resampling.BICUBIC))
    for pixels in (film, np.dstack([film, film, film])):
        Image.fromarray(pixels).save(tmp_path / "film.png")
        convert_film(FilmJob(str(tmp_path / "film.png"), str(tmp_path / "small.png"), 32, aspect))
        with Image.open(tmp_path / "small.png") as small:
            assert small.mode == "L"
            assert (np.asarray(small) == expected).all()
    assert original_size(tmp_path / "small.png") == (40, 64)


def test_colour_stays_and_small_films_are_not_enlarged():
    film = np.random.default_rng(0).integers(0, 255, (10, 20, 3), np.uint8)
    assert (small_film(film, 32, "keep") == film).all()
    assert small_film(grey_as_rgb(film[..., 0]), 32, "keep").shape == (10, 20, 1)
    assert small_film(film, 32, "squash").shape == (32, 32, 3)


def test_dicom_films_whose_white_is_zero_are_inverted_and_boxes_get_a_frame(tmp_path):
    raw = raw_sets.write_vindr(tmp_path / "raw")
    pixels = np.arange(60 * 40, dtype=np.uint16).reshape(60, 40)
    write_dicom(raw / "train/aa.dicom", pixels, photometric="MONOCHROME1")
    write_dicom(raw / "train/bb.dicom", pixels)
    run(raw, tmp_path / "out", source="vindr", views=("all",))
    inverted, plain = (
        np.asarray(Image.open(tmp_path / f"out/films/train/{name}.dicom.png"), int) for name in ("aa", "bb")
    )
    assert (np.abs(255 - inverted - plain) <= 1).all()
    boxes = next(study.boxes for study in read_prepared(tmp_path / "out") if study.boxes)
    assert {box.frame for box in boxes} == {(40, 60)}


def test_a_film_that_cannot_be_read_is_named_and_made_once_it_is_replaced(tmp_path):
    raw = raw_sets.write_nih(tmp_path / "raw")
    path = raw / "images/00000013_000.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    (raw / "images/00000007_000.png").write_bytes(b"no picture")
    about, console = run(raw, tmp_path / "out")
    half_written = raw_sets.write_film(tmp_path / "out/films/images/00000013_001.png.12-34.partial", form="PNG")
    assert about["studies"] == 1
    assert about["noted"]["a film that cannot be read"]["count"] == 2
    assert about["skipped"]["no film that can be read, and no report"]["count"] == 2
    assert "00000007_000.png" in about["noted"]["a film that cannot be read"]["first"]
    assert "00000007_000.png" in console
    path.write_bytes(whole)
    made = (tmp_path / "out/films/images/00000013_001.png").stat().st_mtime_ns
    assert run(raw, tmp_path / "out")[0]["studies"] == 2
    assert not half_written.exists()
    assert (tmp_path / "out/films/images/00000013_001.png").stat().st_mtime_ns == made


def test_a_worker_that_dies_costs_its_film_alone(tmp_path, monkeypatch):
    raw = raw_sets.write_nih(tmp_path / "raw")
    dying = (
        "import os, sys, json; from chestx_jax.sources import film_worker as w; real = w.convert_film\n"
        "w.convert_film = lambda job: os._exit(9) if '13_000' in job.raw else real(job)\n"
        "w.main()"
    )
    monkeypatch.setattr("chestx_jax.sources.film_pool._COMMAND", (sys.executable, "-c", dying))
    about, _ = run(raw, tmp_path / "out", workers=1)
    assert about["films"] == 2
    assert "the process that read it died" in about["noted"]["a film that cannot be read"]["first"]


def test_a_full_disk_ends_the_command(tmp_path, monkeypatch):
    raw_sets.write_film(tmp_path / "film.png")

    def full(path, content):
        raise OSError(errno.ENOSPC, "full")

    job = FilmJob(str(tmp_path / "film.png"), str(tmp_path / "small.png"), 16, "keep")
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", full)
        assert convert_film(job) == FilmResult(disk_full=True)
    monkeypatch.setattr(
        "chestx_jax.sources.prepare.convert_films", lambda jobs, _: ((j, FilmResult("", True)) for j in jobs)
    )
    with pytest.raises(OSError, match="No space left"):
        run(raw_sets.write_nih(tmp_path / "raw"), tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"size": 64}, "was made with size 32 and not 64"),
        ({"aspect": "squash"}, "was made with aspect keep and not squash"),
        ({"views": ("frntal",)}, "There is no view 'frntal': choose frontal"),
        ({"views": ("lateral",)}, "has no study that can be used"),
        ({"source": "openi"}, "looks like nih"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(tmp_path, change, sentence):
    raw, out = raw_sets.write_nih(tmp_path / "raw"), tmp_path / "out"
    run(raw, out)
    out = tmp_path / "other" if "source" in change or "views" in change else out
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match=sentence):
        run(raw, out, **change)
    assert contents(tmp_path / "out") == before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    raw = raw_sets.write_nih(tmp_path / "raw")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and was not made by this command"):
        run(raw, tmp_path / "out")
    with pytest.raises(UserError, match="lies in the raw folder"):
        run(raw, raw / "small")
    with pytest.raises(UserError, match=r"has no studies\.jsonl"):
        list(read_prepared(tmp_path / "out"))


def many_films(folder, count):
    """The layout of NIH with `count` films of noise, large enough to take a while."""
    raw_sets.write_nih(folder)
    rows = [f"{i:08d}_000.png,No Finding,0,{i},58,M,PA,1,1,1,1" for i in range(count)]
    table = folder / "Data_Entry_2017_v2020.csv"
    raw_sets.write_table(table, "\n".join([table.read_text().splitlines()[0], *rows]))
    raw_sets.write_film(folder / "images/00000000_000.png", size=(700, 700))
    for i in range(1, count):
        (folder / f"images/{i:08d}_000.png").unlink(missing_ok=True)
        os.link(folder / "images/00000000_000.png", folder / f"images/{i:08d}_000.png")
    return folder


def test_killed_three_times_the_same_command_ends_with_the_same_bytes(tmp_path):
    raw, out = many_films(tmp_path / "raw", 60), tmp_path / "out"
    run(raw, tmp_path / "whole", 2)
    command = [sys.executable, "-m", "chestx_jax.prepare", "--source=nih", f"--raw={raw}", f"--out={out}", "--size=32"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = {}
    for films in (5, 20, 35):
        process = subprocess.Popen(
            [*command, "--workers=2"], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while len(list(out.glob("films/images/*.png"))) < films and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.2)  # for what the workers were at
        for path in out.glob("films/images/*.png"):
            assert made.setdefault(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
        assert films <= len(made)
    assert not (out / "studies.jsonl").exists()
    finished = subprocess.run([*command, "--workers=3"], env=environment, capture_output=True, text=True, check=True)
    assert finished.stdout.startswith("studies: 118\n") or finished.stdout.startswith("studies: 60\n")
    assert all(path.stat().st_mtime_ns == at for path, at in made.items())
    assert contents(out) == contents(tmp_path / "whole")


def test_the_command_says_in_one_sentence_what_is_wrong(tmp_path):
    command = [sys.executable, "-m", "chestx_jax.prepare", "--source=nhi", f"--raw={tmp_path}", f"--out={tmp_path}-out"]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: There is no set of films 'nhi': did you mean 'nih'?")
