"""Several processes of one command on this machine, joined as under Open MPI, in place of the hosts of a slice."""

import os
import socket
import subprocess
from collections.abc import Sequence
from typing import Any


def start(command: Sequence[str], count: int, **options: Any) -> list[subprocess.Popen]:
    """Starts `count` processes of `command`, each of which calls `jax.distributed.initialize()`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joining = {
        "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:1",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "OMPI_COMM_WORLD_SIZE": str(count),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": "",
    }
    environment = options.pop("env", os.environ) | joining
    return [
        subprocess.Popen(
            command,
            env=environment | {"OMPI_COMM_WORLD_RANK": str(number), "OMPI_COMM_WORLD_LOCAL_RANK": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        for number in range(count)
    ]


def outputs(processes: Sequence[subprocess.Popen], status: Sequence[int], timeout: float = 300) -> list[str]:
    """Each process's output, after all have ended.

    Raises AssertionError where an exit status is not the expected one.
    """
    try:
        texts = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == list(status), "\n".join(texts)
    return texts


def run(command: Sequence[str], status: Sequence[int], **options: Any) -> list[str]:
    """Runs a process of `command` per expected exit status; returns their outputs."""
    return outputs(start(command, len(status), **options), status)
