"""Which rows of a batch are local to a process. What processes do together is in training/test_kill and inference."""

from collections import namedtuple
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from chestx_jax import multihost, sharding
from chestx_jax.sharding import MeshConfig, batch_shardings, make_mesh

Device = namedtuple("Device", "id process_index")


def row_sharding(chips: int, fsdp: int, tensor: int):
    """The sharding of a batch over fsdp × tensor devices, `chips` consecutive ones per process."""

    def devices_indices_map(shape):
        size = shape[0] // fsdp
        place = lambda at: (slice(at // tensor * size, (at // tensor + 1) * size),)  # noqa: E731
        return {Device(at, at // chips): place(at) for at in range(fsdp * tensor)}

    return SimpleNamespace(devices_indices_map=devices_indices_map)


@pytest.mark.parametrize(
    ("chips", "fsdp", "tensor", "process", "rows"),
    [
        (4, 16, 2, 3, [12, 13, 14, 15]),  # two pairs a host
        (4, 4, 8, 3, list(range(8, 16))),  # two hosts hold the same rows
        (4, 1, 8, 1, list(range(32))),
    ],
)
def test_the_rows_of_a_process(monkeypatch, chips, fsdp, tensor, process, rows):
    monkeypatch.setattr(jax, "process_index", lambda: process)
    assert multihost.local_row_indices(row_sharding(chips, fsdp, tensor), 32) == rows


@pytest.mark.parametrize("mesh", [MeshConfig(8, 1, 1), MeshConfig(1, 2, 4), MeshConfig(2, 2, 2)])
def test_local_rows_invert_put(mesh):
    mesh = make_mesh(mesh)
    tree = {"ids": np.arange(48).reshape(16, 3), "name": "as it is", "step": np.int32(3)}
    shardings = batch_shardings(mesh, tree["ids"])
    on_devices = {
        **tree,
        "ids": sharding.put(tree["ids"], shardings),
        "step": jax.device_put(tree["step"], sharding.replicated(mesh)),
    }
    local = multihost.local_rows(on_devices)
    np.testing.assert_array_equal(local["ids"], tree["ids"])
    assert (local["name"], local["step"]) == ("as it is", 3)
    assert multihost.local_row_indices(shardings, 16) == list(range(16))


def test_collectives_of_one_process():
    multihost.barrier("here")
    assert multihost.is_primary()
    assert multihost.all_max((3, 1)) == (3, 1)
    np.testing.assert_array_equal(multihost.all_gather(jax.numpy.arange(3)), [0, 1, 2])
