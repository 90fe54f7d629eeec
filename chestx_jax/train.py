"""`python -m chestx_jax.train --config=configs/rl.py:phantom --workdir=DIR`: trains, tests and exports.

The same command run again after a kill resumes from the last checkpoint.
"""

import os
from pathlib import Path

import jax
from absl import flags, logging
from ml_collections import config_flags

from chestx_jax import cli
from chestx_jax.training import job
from chestx_jax.training.preemption import Stopped
from chestx_jax.training.read_job import read_job

CONFIG = config_flags.DEFINE_config_file("config", None, "the job: configs/NAME.py or configs/NAME.py:PRESET")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
PROFILE = flags.DEFINE_integer(
    "profile", 0, "a step to trace in each stage, for TensorBoard or Perfetto", lower_bound=0
)
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "join the other hosts (TPU pods, SLURM) before starting")


def main(arguments: list[str]) -> int:
    del arguments
    logging.set_verbosity(logging.WARNING)  # Orbax narrates every save
    if DISTRIBUTED.value:
        jax.distributed.initialize()
    try:
        workdir = Path(str(WORKDIR.value))
        job.run(read_job(CONFIG.value, workdir), workdir, PROFILE.value)
    except Stopped as stopped:
        print(stopped, flush=True)
    return 0


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    os.environ.setdefault("WANDB_MODE", "offline")
    cli.run(main)
