"""A job killed with SIGKILL at any moment, run again, ends with the very bytes of one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import SingleDeviceSharding

from chestx_jax import metrics
from tests.helpers import processes
from tests.helpers.paths import ROOT

PATIENCE = 300  # seconds for a step to appear on a busy machine


def command(workdir: Path, preset: str = "") -> list[str]:
    """The real command on the small job."""
    return [
        sys.executable,
        "-m",
        "chestx_jax.train",
        f"--config=tests/helpers/tiny_job.py:{preset}",
        f"--workdir={workdir}",
    ]


def environment(cache: Path) -> dict[str, str]:
    """Compiled programs are kept between runs."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONWARNINGS": "", **kept}


def started(workdir: Path, cache: Path) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command(workdir), cwd=ROOT, env=environment(cache), **pipes)


def finished(process: subprocess.Popen) -> str:
    output = process.communicate(timeout=PATIENCE)[0].decode()
    assert process.returncode == 0, output
    return output


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


def parameters(workdir: Path, stage: str) -> list[bytes]:
    """A stage's final parameters, on whatever devices they were saved from."""
    folder, here = (workdir / stage / "params" / "params").absolute(), SingleDeviceSharding(jax.devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.metadata(folder).item_metadata.tree
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), saved)
        tree = checkpointer.restore(folder, wanted)
    return [np.asarray(leaf).tobytes() for leaf in _leaves(tree)]


def _leaves(tree):
    return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])] if isinstance(tree, dict) else [tree]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("jobs")
    output = finished(started(folder / "whole", folder / "cache"))
    assert "accuracy without the film" in output
    return folder / "whole", folder / "cache"


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
    killed_at(process, workdir / "sft" / "sft.jsonl", 2, signal.SIGTERM)
    assert process.returncode == 0
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


def test_a_workdir_belongs_to_one_model_and_its_data(undisturbed):
    whole, cache = undisturbed
    again = [*command(whole), "--config.grpo.seed=5"]
    process = subprocess.run(again, cwd=ROOT, env=environment(cache), capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "config.grpo.seed was 0, now it is 5" in process.stderr
