"""The same steps on one device, on a mesh of eight, and on two processes of four: the numbers agree."""

import socket
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

from chestx_jax.buckets import LengthsConfig
from chestx_jax.errors import UserError
from chestx_jax.sharding import MeshConfig, make_mesh, partition_spec
from tests.helpers import mesh_run
from tests.helpers.paths import ROOT

STEPS = ("sft/step", "grpo/step")


@pytest.fixture(scope="module")
def alone():
    """Padded to the limits; the others sort the micro-batches of their own devices into buckets."""
    padded = LengthsConfig(rows=(32,), image_slots=(2,), completions=(8,))
    job = replace(mesh_run.JOB, grpo=replace(mesh_run.JOB.grpo, lengths=padded))
    return mesh_run.run_steps(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]), job=job)


@pytest.fixture(scope="module")
def eight():
    return mesh_run.run_steps(make_mesh(MeshConfig(2, 2, 2)))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Two processes of four devices, joined over local sockets."""
    path = tmp_path_factory.mktemp("two_processes") / "results.npz"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.mesh_run", port, "2", str(number), path],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    with np.load(path) as results:
        return dict(results)


def distances(one: dict, other: dict, kind: str) -> dict[str, float]:
    """The distance of two runs by tensor, relative to the tensor's norm."""
    names = [name for name in one if f"['{kind}']" in name]
    assert names
    distance = lambda x, y: float(np.linalg.norm(x.astype(np.float64) - y) / max(np.linalg.norm(x), 1e-30))  # noqa: E731
    return {name: distance(one[name], other[name]) for name in names if np.any(one[name]) or np.any(other[name])}


def check(one, other):
    assert one.keys() == other.keys()
    for step in STEPS:
        name = f"{step}['metrics']['loss']"
        assert abs(one[name] - other[name]) <= 1e-6 * abs(one[name]), step
        assert one[name] != 0
    for kind in ("gradients", "params"):
        by_name = distances(one, other, kind)
        wrong = {name: distance for name, distance in by_name.items() if not distance <= 1e-5}
        assert not wrong


def test_a_mesh_of_eight_agrees_with_one_device(alone, eight):
    check(alone, eight)


def test_two_processes_agree_with_one(eight, two_processes):
    check(eight, two_processes)


def test_every_weight_learns(alone):
    """Otherwise agreement would say nothing."""
    for name, gradient in alone.items():
        if "['gradients']" in name:
            assert np.linalg.norm(gradient) > 0, name


def test_mesh_of_a_configuration():
    assert dict(make_mesh(MeshConfig(-1, 2, 2)).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    for wrong, message in ((MeshConfig(3, 1, 1), "does not make 8 devices"), (MeshConfig(-1, -1, 1), "at most one -1")):
        with pytest.raises(UserError, match=message):
            make_mesh(wrong)


def test_an_axis_that_does_not_divide_is_replicated():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    assert partition_spec(("embed", "kv_heads"), (8, 3), mesh) == jax.sharding.PartitionSpec(("fsdp",), None)
    assert partition_spec(("batch", None), (8, 3), mesh) == jax.sharding.PartitionSpec(("data", "fsdp"), None)
    with pytest.raises(ValueError, match="twice"):
        partition_spec(("heads", "mlp"), (8, 8), mesh)
