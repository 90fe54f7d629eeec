"""A job killed with SIGKILL at any moment, run again, ends with the very bytes of one that was left alone."""

import json
import random
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from chestx_jax import metrics
from tests.helpers import processes
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import PATIENCE, command, environment, finished, parameters, started


def killed_at(process: subprocess.Popen, records: Path, step: int, how: signal.Signals) -> None:
    """Waits until the stage has logged `step`, sends the signal a random moment later, and waits for the end."""
    signalled_at(process, records, step, how)
    process.communicate(timeout=60)


def signalled_at(process: subprocess.Popen, records: Path, step: int, how: signal.Signals) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if records.exists() and any(line["step"] >= step for line in metrics.read(records)):
            time.sleep(random.uniform(0, 0.3))
            process.send_signal(how)
            break
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("jobs")
    output = finished(started(folder / "whole", folder / "cache", JAX_LOG_COMPILES="1"))
    (folder / "whole.log").write_text(output)
    assert "accuracy without the film" in output
    return folder / "whole", folder / "cache"


def test_a_job_compiles_each_program_once_a_bucket(undisturbed):
    """Over all steps of both stages, whose batches have mixed lengths, and the tests after them."""
    log = undisturbed[0].with_suffix(".log").read_text()
    compiled = Counter(re.findall(r"Compiling jit\((\w+)\)", log))
    buckets = Counter({name: int(count) for name, count in re.findall(r"(\w+/\w+) ran in (\d+) bucket", log)})
    assert buckets["sft/step"] >= 2
    assert buckets["grpo/gradients"] >= 2
    assert compiled["step"] == buckets["sft/step"] + 1  # and that of grpo
    assert compiled["gradients"] == compiled["reference_logprobs"] == buckets["grpo/gradients"]
    assert log.count("\nprefill ran in 1 bucket: 192+2") == 2  # both tests, with one program
    assert compiled["prefill"] == buckets["grpo/prefill"] + 1
    assert compiled["score"] == compiled["fetch_reference"] == 1


def test_killed_three_times_in_both_stages_the_job_ends_with_the_same_bytes(undisturbed, tmp_path):
    whole, cache = undisturbed
    workdir = tmp_path / "killed"
    for stage, last in (("sft", 10), ("grpo", 6)):
        for step in sorted(random.sample(range(1, last + 1), 3)):
            killed_at(started(workdir, cache), workdir / stage / f"{stage}.jsonl", step, signal.SIGKILL)
    scores = json.loads((workdir / "scores.json").read_text())  # written after the first test, with its page
    assert (list(scores["models"]), scores["run"]["awaited"]) == (["SFT"], ["GRPO"])
    assert (workdir / "report.html").exists()
    finished(started(workdir, cache))
    assert json.loads((workdir / "scores.json").read_text())["run"]["complete"]
    for stage, steps in (("sft", 12), ("grpo", 8)):
        assert parameters(workdir, stage) == parameters(whole, stage)
        for folder in (workdir, whole):
            logged = [line["step"] for line in metrics.read(folder / stage / f"{stage}.jsonl") if "loss" in line]
            assert logged == list(range(1, steps + 1))  # every step once, whatever was written before the kill


def test_sigterm_saves_and_exits_with_0(undisturbed, tmp_path):
    _, cache = undisturbed
    workdir = tmp_path / "stopped"
    process = started(workdir, cache)
    signalled_at(process, workdir / "sft" / "sft.jsonl", 2, signal.SIGTERM)
    output = finished(process)
    assert "SIGTERM: sft stops and saves as soon as the device is done; killed before, it goes on from" in output
    assert "run the same command to go on" in output
    assert not (workdir / "sft" / "params").exists()
    finished(started(workdir, cache))


def test_two_hosts_train_stop_together_and_go_on(tmp_path):
    """Two processes that share a workdir. SIGTERM in the first stage reaches the one that writes no metrics; resumed,
    the stage ends with the bytes of one that was left alone, and the second stage follows."""
    joined = lambda name, preset="train": [*command(tmp_path / name, preset), "--distributed"]  # noqa: E731
    options = {"cwd": ROOT, "env": environment(tmp_path / "cache")}
    processes.run(joined("whole", "sft"), (0, 0), **options)
    both = processes.start(joined("stopped"), 2, **options)
    signalled_at(both[1], tmp_path / "stopped" / "sft" / "sft.jsonl", 2, signal.SIGTERM)
    outputs = processes.outputs(both, (0, 0))
    assert all("run the same command to go on" in each for each in outputs)
    assert not (tmp_path / "stopped" / "sft" / "params").exists()
    processes.run(joined("stopped"), (0, 0), **options)
    assert parameters(tmp_path / "stopped", "sft") == parameters(tmp_path / "whole", "sft")
    samples = metrics.read(tmp_path / "stopped" / "grpo" / "grpo.samples.jsonl")
    assert {line["step"] for line in samples} == {4, 8}


def test_killed_in_the_notice_period_a_save_is_finished_or_ignored(undisturbed, tmp_path):
    """SIGTERM, and SIGKILL a moment later, while the step ends, is saved or has been: the job goes on from a whole
    checkpoint, says which, and ends with the same bytes."""
    whole, cache = undisturbed
    workdir = tmp_path / "noticed"
    for stage, step in (("sft", 4), ("grpo", 5)):
        process = started(workdir, cache)
        signalled_at(process, workdir / stage / f"{stage}.jsonl", step, signal.SIGTERM)
        time.sleep(random.uniform(0, 0.5))
        process.kill()
        process.communicate(timeout=60)
    assert "grpo goes on from step" in finished(started(workdir, cache))
    for stage in ("sft", "grpo"):
        assert parameters(workdir, stage) == parameters(whole, stage)


@pytest.mark.parametrize("counts", [(2, 1, 2), (1, 2, 1)])
def test_another_number_of_processes_goes_on_from_the_same_place(undisturbed, tmp_path, counts):
    """Killed in the first stage and in the second, each time resumed by another number of processes: the parameters
    and the place in the data of one that was left alone, whatever processes did the steps."""
    whole, cache = undisturbed
    workdir = tmp_path / "moved"
    options = {"cwd": ROOT, "env": environment(cache)}
    for count, stage, step in zip(counts, ("sft", "grpo"), (4, 3), strict=False):
        joined = [*command(workdir, "train"), *["--distributed"] * (count > 1)]
        running = processes.start(joined, count, **options)
        signalled_at(running[-1], workdir / stage / f"{stage}.jsonl", step, signal.SIGKILL)
        for process in running:
            process.kill()
            process.communicate(timeout=60)
    last = [*command(workdir, "train"), *["--distributed"] * (counts[2] > 1)]
    processes.run(last, (0,) * counts[2], **options)
    for stage, steps in (("sft", 12), ("grpo", 8)):
        assert positions(workdir / stage) == positions(whole / stage)
        for folder in (workdir, whole):
            logged = [line["step"] for line in metrics.read(folder / stage / f"{stage}.jsonl") if "loss" in line]
            assert logged == list(range(1, steps + 1))
        assert differences(workdir, whole, stage) < 1e-3


def positions(stage: Path) -> str:
    """The place in the data of a stage's last checkpoint."""
    last = max((stage / "checkpoints").iterdir(), key=lambda path: int(path.name) if path.name.isdigit() else -1)
    return (last / "position" / "metadata").read_text()


def differences(one: Path, other: Path, stage: str) -> float:
    """The largest distance between two stages' parameters, as a share of the tensor's norm."""
    pairs = zip(parameters(one, stage), parameters(other, stage), strict=True)
    arrays = [[np.frombuffer(leaf, np.float32).astype(np.float64) for leaf in pair] for pair in pairs]
    return max(float(np.linalg.norm(x - y) / np.linalg.norm(y)) for x, y in arrays if np.linalg.norm(y))


def test_a_workdir_belongs_to_one_model_and_its_data(undisturbed):
    whole, cache = undisturbed
    again = [*command(whole), "--config.grpo.seed=5", "--config.grpo.optimizer.rate=0.5"]
    process = subprocess.run(again, cwd=ROOT, env=environment(cache), capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "config.grpo.seed was 0, now it is 5" in process.stderr
