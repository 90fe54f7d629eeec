"""From the raw layout of NIH ChestX-ray14 to a tested model, on a made-up set: the commands of docs/real-data.md."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chestx_jax.data.reader import read_samples
from chestx_jax.mining.dataset import MineConfig, mine
from chestx_jax.sources.prepare import PrepareConfig, prepare
from tests.helpers.paths import DATA, ROOT
from tests.helpers.raw_sets import write_film, write_table
from tests.helpers.tiny_runs import environment, finished

PATIENTS, FOLLOW_UPS = 90, 2
FINDINGS = ("Effusion", "No Finding", "Cardiomegaly", "Effusion|Pneumonia", "Pneumothorax", "No Finding")
TINY = {
    "model.layers": 1, "model.width": 32, "model.heads": 2, "model.kv_heads": 1, "model.hidden": 32,
    "model.mrope_section": (2, 3, 3), "model.start": "random", "model.residual_range": 0.08, "model.vision.layers": 1,
    "model.vision.width": 32, "model.vision.heads": 2, "model.vision.hidden": 32, "model.vision.deepstack_layers": (0,),
    "init.init": "random", "init.batch": 2, "init.steps": 4, "init.cadence.validate": 2, "init.validation_batches": 1,
    "init.lengths.rows": (288,), "evaluation.length": 8, "evaluation.limit": 4, "evaluation.blind": False, "grpo": None,
}  # fmt: skip


def write_raw(folder):
    """Two films of each of many patients; every fifth patient is of the test list."""
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    names = [(patient, film) for patient in range(1, PATIENTS + 1) for film in range(FOLLOW_UPS)]
    rows, lists = [header], {"train_val_list.txt": [], "test_list.txt": []}
    for patient, film in names:
        name = f"{patient:08d}_{film:03d}.png"
        view = ("PA", "AP")[patient % 2]
        rows.append(f"{name},{FINDINGS[(patient + film) % 6]},{film},{patient},{40 + patient % 9},F,{view}")
        lists["test_list.txt" if patient % 5 == 0 else "train_val_list.txt"].append(name)
        write_film(folder / "images" / name, seed=patient, size=(28, 28))
    write_table(folder / "Data_Entry_2017_v2020.csv", "\n".join(rows))
    for name, films in lists.items():
        write_table(folder / name, "\n".join(films))
    return folder


def patients(folder):
    splits = ("train", "validation", "test")
    return {split: {sample.patient for sample in read_samples(folder / f"{split}.jsonl")} for split in splits}


def disjoint(sides):
    return not any(sides[one] & sides[other] for one in sides for other in sides if one != other)


def test_from_the_raw_folder_to_a_tested_model(tmp_path):
    """The tokenizer is trained on the questions' text, the films are augmented, no patient is on both sides, and the
    test is scored by patient."""
    data, run = tmp_path / "data", tmp_path / "run"
    prepare(PrepareConfig("nih", size=112), write_raw(tmp_path / "raw"), data / "nih", 1, sys.stderr)
    mine(MineConfig(per_label=8), data / "nih", data / "nih-questions")
    sides = patients(data / "nih-questions")
    assert all(sides.values())
    assert disjoint(sides)
    seen = {sample.patient for sample in read_samples(data / "nih-questions/checks.jsonl")}
    assert seen
    assert not seen & (sides["validation"] | sides["test"])

    flags = [f"--config.data_root={data}", *(f"--config.{name}={value}" for name, value in TINY.items())]
    command = [sys.executable, "-m", "chestx_jax.train", "--config=configs/rl.py:nih", f"--workdir={run}", *flags]
    cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    printed = finished(subprocess.Popen(command, cwd=ROOT, env=environment(cache), **pipes))
    scores = json.loads((run / "scores.json").read_text())
    assert scores["run"]["complete"]
    assert scores["blind_baselines"]["guessers"]["binary"].keys() >= {"combined", "view"}
    assert "view" in printed
    assert scores["models"]["SFT"]["labels"].keys() >= {"Pleural Effusion", "mean of labels"}
    assert (run / "report.html").stat().st_size > 10_000
    assert (data / "nih-questions/tokenizer").is_dir()


@pytest.mark.skipif(not (DATA / "nih").is_dir(), reason="needs the NIH films of the development data")
def test_no_patient_of_the_real_lists_is_on_both_sides():
    lists = [(DATA / "nih" / name).read_text().split() for name in ("train_val_list.txt", "test_list.txt")]
    train, test = ({name.partition("_")[0] for name in names} for names in lists)
    assert not train & test
