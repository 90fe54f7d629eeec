"""Who holds which rows of a batch. What processes do together is in test_loops_kill and test_eval_predict."""

from collections import namedtuple
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from chestx_jax import multihost, sharding
from chestx_jax.sharding import MeshConfig, batch_shardings, make_mesh

Device = namedtuple("Device", "id process_index")


def rows_over(chips: int, fsdp: int, tensor: int):
    """The sharding of a batch over fsdp × tensor devices, of which each process has `chips` in order."""

    def devices_indices_map(shape):
        size = shape[0] // fsdp
        place = lambda at: (slice(at // tensor * size, (at // tensor + 1) * size),)  # noqa: E731
        return {Device(at, at // chips): place(at) for at in range(fsdp * tensor)}

    return SimpleNamespace(devices_indices_map=devices_indices_map)


@pytest.mark.parametrize(
    ("chips", "fsdp", "tensor", "process", "rows", "part"),
    [
        (4, 16, 2, 3, [12, 13, 14, 15], (3, 8)),  # two pairs a host
        (4, 4, 8, 3, list(range(8, 16)), (1, 4)),  # two hosts hold the same rows
        (4, 1, 8, 1, list(range(32)), (0, 1)),
    ],
)
def test_processes_that_hold_the_same_rows_read_the_same_data(monkeypatch, chips, fsdp, tensor, process, rows, part):
    monkeypatch.setattr(jax, "process_index", lambda: process)
    assert multihost.local_row_indices(rows_over(chips, fsdp, tensor), 32) == rows
    assert multihost.data_shard(rows_over(chips, fsdp, tensor), 32) == part


@pytest.mark.parametrize("mesh", [MeshConfig(8, 1, 1), MeshConfig(1, 2, 4), MeshConfig(2, 2, 2)])
def test_what_was_put_on_the_devices_is_held(mesh):
    mesh = make_mesh(mesh)
    tree = {"ids": np.arange(48).reshape(16, 3), "name": "as it is", "step": np.int32(3)}
    at = batch_shardings(mesh, tree["ids"])
    placed = {
        **tree,
        "ids": sharding.put(tree["ids"], at),
        "step": jax.device_put(tree["step"], sharding.replicated(mesh)),
    }
    found = multihost.local_rows(placed)
    np.testing.assert_array_equal(found["ids"], tree["ids"])
    assert (found["name"], found["step"]) == ("as it is", 3)
    assert multihost.local_row_indices(at, 16) == list(range(16))


def test_alone_there_is_nobody_to_wait_for():
    multihost.barrier("here")
    assert multihost.is_primary()
    assert multihost.all_max((3, 1)) == (3, 1)
    np.testing.assert_array_equal(multihost.all_gather(jax.numpy.arange(3)), [0, 1, 2])
