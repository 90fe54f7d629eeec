"""The paper's ablation at phantom scale: SFT; then GRPO with the outcome reward alone, or with the process reward.

    python tests/benchmarks/ablation.py --out runs/ablation [--seeds 0 1 2] [--data DIR]

Both arms start from the same supervised weights of their seed and take equal steps. Prints one line per seed and
arm, then the mean over seeds with the standard error. Run again after a stop, it goes on.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from chestx_jax.config import to_dataclass
from chestx_jax.eval.tables import aligned
from chestx_jax.loops import job
from chestx_jax.recipes import JobConfig
from configs import rl

COLUMNS = ("accuracy", "factuality", "completeness", "drawn_factuality", "words")
OUTCOME_ONLY = {"process": 0.0}


def configuration(seed: int, data: Path, rewards: dict, init: str = ""):
    """The phantom job with one seed throughout; from `init` where given, else from nothing."""
    config = rl.phantom()
    config.data_root = str(data)
    config.init.seed = config.init.init.seed = config.grpo.seed = seed
    config.grpo.rewards = {**config.grpo.rewards.to_dict(), **rewards}
    config.evaluation.blind = False
    fields = config.to_dict()
    return to_dataclass(JobConfig, {**fields, "init": init} if init else fields)


def arms(seed: int, out: Path, data: Path) -> dict[str, dict]:
    """The scored rows of the three arms of a seed."""
    process, outcome = out / f"seed{seed}_process", out / f"seed{seed}_outcome"
    job.run(configuration(seed, data, {}), process)
    job.run(configuration(seed, data, OUTCOME_ONLY, f"orbax:{process}/sft/params"), outcome)
    scores = {folder: json.loads((folder / "scores.json").read_text())["models"] for folder in (process, outcome)}
    return {
        "SFT": scores[process]["SFT"]["tasks"],
        "GRPO, outcome reward": scores[outcome]["GRPO"]["tasks"],
        "GRPO, process reward": scores[process]["GRPO"]["tasks"],
    }


def value(tasks: dict, column: str) -> float:
    """Accuracy over the closed families, the other columns over all records; percent but for words."""
    mean = tasks["closed" if column == "accuracy" else "all"]["metrics"][column]["mean"]
    return mean if column == "words" else 100 * mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="the phantom set; drawn in OUT/data where not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    found = {seed: arms(seed, options.out, options.data or options.out / "data") for seed in options.seeds}
    lines = [["arm", "seed", *COLUMNS]]
    for arm in found[options.seeds[0]]:
        table = np.array([[value(found[seed][arm], column) for column in COLUMNS] for seed in options.seeds])
        lines += [[arm, str(seed), *(f"{x:.1f}" for x in row)] for seed, row in zip(options.seeds, table, strict=True)]
        error = table.std(0, ddof=1) / len(table) ** 0.5 if len(table) > 1 else np.zeros(len(COLUMNS))
        lines.append([arm, "mean ± s.e.", *(f"{m:.1f} ± {e:.1f}" for m, e in zip(table.mean(0), error, strict=True))])
    print(aligned(lines))


if __name__ == "__main__":
    main()
