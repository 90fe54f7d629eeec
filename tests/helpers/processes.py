"""Several processes of one command on this machine, joined as under Open MPI: the hosts of a slice, for tests."""

import os
import socket
import subprocess
from collections.abc import Sequence
from typing import Any


def started(command: Sequence[str], count: int, **options: Any) -> list[subprocess.Popen]:
    """`count` processes of `command`, each of which joins by `jax.distributed.initialize()`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:1",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "OMPI_COMM_WORLD_SIZE": str(count),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": "",
    }
    environment = options.pop("env", os.environ) | shared
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


def finished(processes: Sequence[subprocess.Popen], status: Sequence[int], timeout: float = 300) -> list[str]:
    """What each said, once all have ended.

    Raises AssertionError where one ends with another status than the one expected.
    """
    try:
        said = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == list(status), "\n".join(said)
    return said


def run(command: Sequence[str], status: Sequence[int], **options: Any) -> list[str]:
    """A process of `command` per expected exit status; what each said."""
    return finished(started(command, len(status), **options), status)
