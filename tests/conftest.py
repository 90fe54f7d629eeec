"""Every test runs on eight CPU devices, with promotions that numpy would make in silence raised as errors."""

import atexit
import os
import pathlib
import shutil
import tempfile

# Read by XLA when jax is first imported, and inherited by the processes that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag]
    + ["--xla_force_host_platform_device_count=8"]
)
# No test touches the network: whatever tries to reach a hub or a metrics server fails at once instead of waiting.
os.environ.update({"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"})
# What one test has compiled, others and the commands that they start need not compile again; a folder that is named
# beforehand is kept, for the next run of the tests.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import hypothesis
import jax
import pytest

from tests.helpers import arrays
from tests.helpers.paths import DATA

arrays.install()  # before the package is imported
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes first examples slow, so no deadline; with CI set, the same examples on every run.
hypothesis.settings.register_profile("chestx", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
hypothesis.settings.load_profile("chestx")


# The slowest files first, so that no worker is left alone with one at the end.
SLOWEST = (
    "training/test_kill",
    "update/test_packing",
    "programs/",
    "update/",
    "eval/test_commands",
    "inference/",
    "rewards/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the tests by `SLOWEST`; those of one file stay in their order."""
    rank = lambda item: next((i for i, part in enumerate(SLOWEST) if part in item.nodeid), len(SLOWEST))  # noqa: E731
    items.sort(key=rank)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real development data, which the repository does not hold; tests that need it skip without it."""
    if not DATA.is_dir():
        pytest.skip(f"no development data: {DATA} is not a folder (CHESTX_SHARED names its parent)")
    return DATA
