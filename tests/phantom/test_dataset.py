"""The phantom set on disk: same seed, same bytes; whole or not there; read back by the reader of real records."""

import hashlib
import json
import os
import runpy
import subprocess
import sys
from collections import Counter

import pytest
from PIL import Image

from chestx_jax.data.reader import find_problems, read_samples
from chestx_jax.errors import UserError
from chestx_jax.labels import LABELS, TASKS, label_names
from chestx_jax.phantom import dataset
from chestx_jax.phantom.__main__ import main
from chestx_jax.phantom.dataset import PhantomSpec, Split, write_phantom

SMALL = Split(patients=40, follow_ups=12, per_task=12)
SPEC = PhantomSpec(seed=3, size=64, train=SMALL, rl=SMALL, validation=SMALL, test=SMALL)
TOLD = ("base_told", "base_told_checks", "base_told_changes")
BASE = ("base_regions", "base_extents", "base_checks", "base_pairs", *TOLD)
FILES = ("train_reasoning", "train_answer", *BASE, "rl", "validation", "test")

SOURCES = {
    "train_answer": "phantom-answer",
    "base_regions": "regions",
    "base_checks": "checks",
    "base_extents": "extents",
    "base_pairs": "extents",
    **dict.fromkeys(TOLD, "told"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("set") / "phantom", SPEC, processes=1)


def digests(folder) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes_however_many_processes(folder, tmp_path):
    """Also in another interpreter, whose sets and dicts hash strings differently."""
    code = f"from chestx_jax.phantom.dataset import *; write_phantom({str(tmp_path / 'again')!r}, {SPEC!r}, 3)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    again = digests(tmp_path / "again")
    assert again == digests(folder)
    assert sum(name.endswith(".png") for name in again) == 4 * (40 + 2 * 12)


def test_another_seed_is_another_set(folder, tmp_path):
    other = PhantomSpec(**{**vars(SPEC), "seed": 4})
    changed = digests(write_phantom(tmp_path / "other", other, processes=2))
    same = {name for name, digest in digests(folder).items() if changed[name] == digest}
    assert not same


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_read_back_without_a_problem(folder, name):
    path = folder / f"{name}.jsonl"
    assert not list(find_problems(path))
    samples = read_samples(path)
    assert len(samples) == json.loads((folder / "about.json").read_text())["samples"][name]
    for sample in samples:
        assert sample.source == SOURCES.get(name, "phantom")
        if sample.task == "anomaly" and name not in BASE:
            assert set(label_names(sample.answer)) <= {label.lower() for label in LABELS}
        for image in sample.images:
            with Image.open(image) as film:
                assert (film.mode, film.size) == ("L", (64, 64))


def test_what_each_file_holds(folder):
    samples = {name: read_samples(folder / f"{name}.jsonl") for name in FILES}
    for name in ("train_reasoning", "train_answer", "rl", "validation", "test"):
        tasks = Counter(sample.task for sample in samples[name])
        assert set(tasks) == set(TASKS)
        assert all(9 <= count <= 12 for count in tasks.values())  # so few films do not answer every question
    assert all(sample.steps and sample.drawn is not None for sample in samples["train_reasoning"])
    assert not any(sample.steps for sample in samples["train_answer"])
    films = {name: {len(sample.images) for sample in samples[name]} for name in BASE}
    one_film = {name: {1} for name in ("base_regions", "base_extents", "base_checks")}
    assert films == {"base_pairs": {2}} | one_film | {name: {0} for name in TOLD}
    assert len({sample.id for of_file in samples.values() for sample in of_file}) == sum(map(len, samples.values()))


def test_splits_share_no_patient(folder):
    def patients(*names):
        images = [image for name in names for s in read_samples(folder / f"{name}.jsonl") for image in s.images]
        return {image.rstrip("ab.png") for image in images}

    groups = [
        patients("train_reasoning", "train_answer", "base_checks"),
        patients("rl"),
        patients("validation"),
        patients("test"),
    ]
    films = [
        {hashlib.sha256(p.read_bytes()).digest() for p in (folder / "images" / name).glob("*.png")}
        for name in ("train", "rl", "validation", "test")
    ]
    for sets in (groups, films):
        assert all(sets)
        assert len(set().union(*sets)) == sum(map(len, sets))


def test_a_finished_set_is_kept_and_another_is_not_overwritten(folder):
    before = (folder / "test.jsonl").stat().st_mtime_ns
    assert write_phantom(folder, SPEC) == folder
    assert (folder / "test.jsonl").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="already holds something else"):
        write_phantom(folder, PhantomSpec(**{**vars(SPEC), "seed": 5}))
    assert (folder / "test.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch, problem):
    def fail(folder, name, samples):
        raise problem

    monkeypatch.setattr(dataset, "_save", fail)
    with pytest.raises((UserError, KeyboardInterrupt)) as caught:
        write_phantom(tmp_path / "set", SPEC, processes=1)
    if isinstance(problem, OSError):
        assert "No space left" in str(caught.value)
        assert "free space" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_drawing_process_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "to_json", lambda job: "{broken")
    with pytest.raises(UserError, match="could not be written"):
        write_phantom(tmp_path / "set", SPEC, processes=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes", [{"size": 8}, {"size": 10_000}, {"test": Split(3, 1, 5)}, {"rl": Split(30, -1, 5)}])
def test_specs_out_of_range(tmp_path, changes):
    with pytest.raises(UserError, match="Phantom"):
        write_phantom(tmp_path / "set", PhantomSpec(**{**vars(SPEC), **changes}))
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_the_total(tmp_path):
    seen = []
    write_phantom(tmp_path / "set", SPEC, processes=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (256, 256)
    assert all(done <= total for done, total in seen)


def test_drawing_processes_do_not_import_jax():
    module = "chestx_jax.phantom.drawing.render"
    code = f"import sys, {module}; print([m for m in ('jax', 'flax', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_command_line(tmp_path, capsys):
    assert main(["contact_sheet", "--out", str(tmp_path / "sheet.png"), "--label", "Edema", "--columns", "2"]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (2 * 228, 242)
    (tmp_path / "full").mkdir()
    assert main(["write", "--out", str(tmp_path / "full")]) == 2
    assert "already holds something else" in capsys.readouterr().err
    assert main(["write", "--out", str(tmp_path / "set"), "--size", "4"]) == 2


def test_the_former_command_names_the_new_one(capsys):
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("chestx_jax.data.phantom", run_name="__main__")
    assert "python -m chestx_jax.phantom" in capsys.readouterr().err
