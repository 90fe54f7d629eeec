"""A job killed with SIGKILL at any moment, run again, ends with the very bytes of one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from chestx_jax import metrics

ROOT = Path(__file__).parents[1]
PATIENCE = 300  # seconds for a step to appear on a busy machine


def started(workdir: Path, cache: Path) -> subprocess.Popen:
    """The real command on the small job, with compiled programs kept between runs."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "XLA_FLAGS": "", "PYTHONWARNINGS": ""}
    command = [sys.executable, "-m", "chestx_jax.train", "--config=tests/tiny_job.py", f"--workdir={workdir}"]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finished(process: subprocess.Popen) -> str:
    output = process.communicate(timeout=PATIENCE)[0].decode()
    assert process.returncode == 0, output
    return output


def killed_at(process: subprocess.Popen, records: Path, step: int, how: signal.Signals) -> None:
    """Waits until the stage has logged `step`, then sends the signal a random moment later."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if records.exists() and any(line["step"] >= step for line in metrics.read(records)):
            time.sleep(random.uniform(0, 0.3))
            process.send_signal(how)
            break
        time.sleep(0.02)
    process.communicate(timeout=60)


def parameters(workdir: Path, stage: str) -> list[bytes]:
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore((workdir / stage / "params" / "params").absolute())
    return [np.asarray(leaf).tobytes() for leaf in _leaves(tree)]


def _leaves(tree):
    return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])] if isinstance(tree, dict) else [tree]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("jobs")
    output = finished(started(folder / "whole", folder / "cache"))
    assert "accuracy above blind" in output
    return folder / "whole", folder / "cache"


def test_killed_three_times_in_both_stages_the_job_ends_with_the_same_bytes(undisturbed, tmp_path):
    whole, cache = undisturbed
    workdir = tmp_path / "killed"
    for stage, last in (("sft", 10), ("grpo", 6)):
        for step in sorted(random.sample(range(1, last + 1), 3)):
            killed_at(started(workdir, cache), workdir / stage / f"{stage}.jsonl", step, signal.SIGKILL)
    finished(started(workdir, cache))
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


def test_a_workdir_belongs_to_one_configuration(undisturbed):
    whole, cache = undisturbed
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache), "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "chestx_jax.train", "--config=tests/tiny_job.py", f"--workdir={whole}"]
    again = [*command, "--config.grpo.optimizer.rate=0.5"]
    found = subprocess.run(again, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "config.grpo.optimizer.rate was" in found.stderr
