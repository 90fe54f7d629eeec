"""The paper's ablation at phantom scale: SFT; then GRPO with the outcome reward alone, with the paper's process reward,
and with the additive one: by the sequence, and by the step as well, each step's own worth or that of all from it on.

    python -m tests.benchmarks.ablation --out runs/ablation [--seeds 0 1 2] [--data DIR]

All arms start from the same supervised weights of their seed and take equal steps. Prints one line per seed and arm,
then the mean over seeds with the standard error, then each arm less SFT, paired by seed, with Student's 95 % interval.
Run again after a stop, it goes on.
"""

import argparse
import json
import re
import shutil
from pathlib import Path

import numpy as np
from scipy import stats

from chestx_jax.config import from_defaults, to_dataclass
from chestx_jax.eval.report.tables import aligned
from chestx_jax.recipes import JobConfig
from chestx_jax.training import job
from configs import rl

COLUMNS = (
    "accuracy", "f1", "factuality", "completeness", "effectiveness", "process",
    "ground_truth_factuality", "claims", "words",
)  # fmt: skip
COUNTS = ("claims", "words")
STEPS = 90  # of every arm, as the phantom job's; all else is the job's, too
BY_STEP = {"credit": "step"}
ARMS = {  # the last is the phantom job itself; fields of `grpo.rewards` and of `grpo.advantages`
    "outcome": ({"process": 0.0, "credit": "sequence"}, {"step_weight": 0.0}),
    "paper's rule": ({"rule": "paper", "credit": "sequence"}, {"step_weight": 0.0}),
    "additive, by sequence": ({"credit": "sequence"}, {"step_weight": 0.0}),
    "additive, to go": (BY_STEP, {"step_credit": "to_go"}),
    "additive, own worth": (BY_STEP, {"step_credit": "own"}),
}


def configuration(seed: int, data: Path, arm: str, init: str = "") -> JobConfig:
    """The phantom job with one seed throughout; from the weights `init` where given, else from nothing."""
    rewards, advantages = ARMS[arm]
    changes = {
        "data_root": str(data),
        "init": init or {"seed": seed, "init": {"seed": seed}},
        "grpo": {"seed": seed, "steps": STEPS, "rewards": rewards, "advantages": advantages},
        "evaluation": {"blind": False},
    }
    return to_dataclass(JobConfig, from_defaults(JobConfig, rl.PHANTOM, changes))


def arms(seed: int, out: Path, data: Path) -> dict[str, dict]:
    """The scored rows of a seed's arms. The last arm trains the supervised weights that the others start from."""
    *others, last = ARMS
    folder = {name: out / "_".join([f"seed{seed}", *re.findall(r"\w+", name)]) for name in ARMS}
    job.run(configuration(seed, data, last), folder[last])
    for name in others:
        (folder[name] / "test").mkdir(parents=True, exist_ok=True)
        shutil.copy(folder[last] / "test" / "SFT.jsonl", folder[name] / "test")  # the same weights' answers
        job.run(configuration(seed, data, name, f"orbax:{folder[last]}/sft/params"), folder[name])
    scores = {name: json.loads((folder[name] / "scores.json").read_text())["models"] for name in ARMS}
    return {"SFT": scores[last]["SFT"]["tasks"]} | {f"GRPO, {name}": scores[name]["GRPO"]["tasks"] for name in ARMS}


def value(tasks: dict, column: str) -> float:
    """Accuracy over the closed families, label F1 of anomaly, the others over all records; percent but for words."""
    family = {"accuracy": "closed", "f1": "anomaly"}.get(column, "all")
    mean = tasks[family]["metrics"][column]["mean"]
    return mean if column in COUNTS else 100 * mean


def mean_error(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the rows and its standard error (0 for one row)."""
    error = table.std(0, ddof=1) / len(table) ** 0.5 if len(table) > 1 else np.zeros(table.shape[1])
    return table.mean(0), error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="the phantom set; drawn in OUT/data where not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    tasks = {seed: arms(seed, options.out, options.data or options.out / "data") for seed in options.seeds}
    tables = {
        arm: np.array([[value(tasks[seed][arm], column) for column in COLUMNS] for seed in options.seeds])
        for arm in tasks[options.seeds[0]]
    }
    lines = [["arm", "seed", *COLUMNS]]
    for arm, table in tables.items():
        lines += [[arm, str(seed), *(f"{x:.1f}" for x in row)] for seed, row in zip(options.seeds, table, strict=True)]
        lines.append([arm, "mean ± s.e.", *(f"{m:.1f} ± {e:.1f}" for m, e in zip(*mean_error(table), strict=True))])
    quantile = stats.t.ppf(0.975, len(options.seeds) - 1) if len(options.seeds) > 1 else float("nan")
    for arm, table in list(tables.items())[1:]:
        change = zip(*mean_error(table - tables["SFT"]), strict=True)
        cells = [f"{m:+.1f} [{m - quantile * e:+.1f}, {m + quantile * e:+.1f}]" for m, e in change]
        lines.append([arm, "less SFT", *cells])
    print(aligned(lines))


if __name__ == "__main__":
    main()
