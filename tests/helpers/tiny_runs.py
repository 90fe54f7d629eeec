"""The real training command on the small job of `tiny_job`, in processes of its own."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

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
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "PYTHONWARNINGS": "",
        **kept,
    }


def started(workdir: Path, cache: Path, preset: str = "", *flags: str, **variables: str) -> subprocess.Popen:
    """With `variables` in its environment. A process whose output is not read must print little: it fills a pipe."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    surroundings = environment(cache) | variables
    return subprocess.Popen([*command(workdir, preset), *flags], cwd=ROOT, env=surroundings, **pipes)


def finished(process: subprocess.Popen) -> str:
    output = process.communicate(timeout=PATIENCE)[0].decode()
    assert process.returncode == 0, output
    return output


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
