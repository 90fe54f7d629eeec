"""Real films: the phantom's small model on NIH ChestX-ray14, from nothing and from the phantom's weights, over seeds.

    python -m tests.benchmarks.nih --raw DOWNLOADS/nih --out runs/nih --phantom runs/phantom [--seeds 0 1 2]

Prepares and mines the films, runs configs/rl.py:nih for each arm and seed, and prints balanced accuracy on the yes/no
questions about the test patients, by label, its mean over labels, and that mean on films of either view; beside what
is had from the question alone, from the view, from view, age and sex, and from the film as 16 × 16 pixels by logistic
regression: what hardly any training gives. Intervals are by patient; of several seeds they are of the mean over seeds.
Run again after a stop, it goes on. `--models SFT` leaves out what takes longer, which a later run adds, `--arms
nothing` one of the starts; `--table` prints what there is.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from chestx_jax.config import from_defaults, to_dataclass
from chestx_jax.data.questions import options, parts
from chestx_jax.data.reader import read_samples
from chestx_jax.data.schema import Sample
from chestx_jax.eval.predictions.accuracy import outcome
from chestx_jax.eval.predictions.records import read_predictions
from chestx_jax.eval.report.tables import aligned, cell
from chestx_jax.eval.statistics.balanced import MEAN, balanced_accuracy
from chestx_jax.labels import LABELS
from chestx_jax.mining.dataset import MineConfig, mine
from chestx_jax.recipes import JobConfig
from chestx_jax.sources.prepare import PrepareConfig, prepare
from chestx_jax.sources.problems import Problems
from chestx_jax.sources.tables import read_table
from chestx_jax.training import job
from configs import rl

MODELS = ("blind", "SFT", "GRPO")
SIDE = 16  # pixels of the films that logistic regression sees
RIDGE = 10.0
Answers = dict[str, bool]  # id of a question -> whether it was answered right


def configuration(data: Path, seed: int, models: Sequence[str], phantom: Path | None) -> JobConfig:
    """The job configs/rl.py:nih with one seed throughout, for some of its models."""
    start = {"init": f"orbax:{phantom.absolute()}/sft/params"} if phantom else {}
    changes = {
        "data_root": str(data.absolute()),
        "init": {"seed": seed, "init": {"seed": seed, **start}},
        "grpo": {"seed": seed} if "GRPO" in models else None,
        "evaluation": {"blind": "blind" in models},
    }
    if phantom:
        changes["tokenizer"] = str(phantom.absolute() / "data/tokenizer")
    return to_dataclass(JobConfig, from_defaults(JobConfig, rl.NIH, changes))


def make_data(raw: Path, data: Path) -> None:
    """The films and questions, unless they are there."""
    if not (data / "nih/about.json").exists():
        prepare(PrepareConfig("nih", size=112), raw, data / "nih", 2, sys.stderr)
    if not (data / "nih-questions/data_card.md").exists():
        mine(MineConfig(verdicts=True), data / "nih", data / "nih-questions")


def label_of(sample: Sample) -> str:
    """The label that a yes/no question asks for."""
    stem = parts(sample.question).stem.lower()
    return next(label for label in LABELS if label.lower() in stem)


def is_yes(sample: Sample) -> bool:
    return options(sample.question)[sample.answer].lower() == "yes"


def answered(path: Path) -> Answers:
    """Which yes/no questions a model answered right."""
    return {p.sample_id: outcome(p).correct for p in read_predictions(path) if p.task == "binary"}


def guessed(train: Sequence[Sample], test: Sequence[Sample], features: Callable[[Sample], np.ndarray]) -> Answers:
    """Answers of logistic regressions on what `features` gives of a sample, one for each label."""
    right = {}
    for label in {label_of(sample) for sample in test}:
        of_train, of_test = ([s for s in samples if label_of(s) == label] for samples in (train, test))
        known = np.array([features(sample) for sample in of_train])
        weights = logistic(known, np.array([is_yes(sample) for sample in of_train], float))
        for sample in of_test:
            right[sample.id] = bool((np.append(features(sample), 1.0) @ weights > 0) == is_yes(sample))
    return right


def logistic(x_NxD: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    """Weights, the last that of a constant, by Newton's method with a ridge."""
    x_NxD = np.c_[x_NxD, np.ones(len(x_NxD))]
    ridge = np.diag(np.append(np.full(x_NxD.shape[1] - 1, RIDGE), 1e-6))
    weights = np.zeros(x_NxD.shape[1])
    for _ in range(25):
        p_N = 1 / (1 + np.exp(-x_NxD @ weights))
        curvature = (x_NxD * (p_N * (1 - p_N))[:, None]).T @ x_NxD + ridge
        weights -= np.linalg.solve(curvature, x_NxD.T @ (p_N - y_N) + ridge @ weights)
    return weights


def thumbnail(sample: Sample) -> np.ndarray:
    """The film as few pixels of mean 0 and spread 1."""
    with Image.open(sample.images[0]) as image:
        pixels = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), float).ravel()
    return (pixels - pixels.mean()) / (pixels.std() + 1e-6)


def person(raw: Path) -> dict[str, np.ndarray]:
    """Age and sex of each film's patient, by the film's name."""
    (table,) = raw.rglob("Data_Entry_2017*.csv")
    rows = read_table(table, ("Image Index", "Patient Age", "Patient Gender"), Problems(lambda _: None))
    age = lambda text: float("".join(filter(str.isdigit, text)) or 50)  # noqa: E731
    return {r["Image Index"]: np.array([age(r["Patient Age"]) / 20 - 2.5, r["Patient Gender"] == "F"]) for r in rows}


def baselines(raw: Path, train: Sequence[Sample], test: Sequence[Sample]) -> dict[str, list[Answers]]:
    people = person(raw)
    view = lambda s: np.array([s.views[0] == "AP"], float)  # noqa: E731
    thumbnails = {image: thumbnail(s) for s in [*train, *test] for image in s.images}
    features = {
        "question": lambda s: np.zeros(0),
        "view": view,
        "view, age, sex": lambda s: np.append(view(s), people[Path(s.images[0]).name]),
        f"{SIDE}×{SIDE} pixels": lambda s: thumbnails[s.images[0]],
    }
    return {name: [guessed(train, test, of)] for name, of in features.items()}


def column(test: Sequence[Sample], runs: Sequence[Answers]) -> dict[str, str]:
    """The cells of one model: by label, their mean, and the mean on films of either view, over its seeds."""

    def scored(of: Callable[[Sample], bool]) -> Mapping[str, str]:
        answered = [(s, run[s.id]) for run in runs for s in test if of(s) and s.id in run]
        samples = [s for s, _ in answered]
        found = balanced_accuracy(
            list(map(label_of, samples)),
            list(map(is_yes, samples)),
            [r for _, r in answered],
            [s.patient for s in samples],
        )
        return {name: cell("accuracy", interval) for name, interval in found.items()}

    views = {f"{MEAN}, {view} films": scored(lambda s, v=view: v in s.views).get(MEAN, "–") for view in ("PA", "AP")}
    return {**scored(lambda s: True), **views}


def table(test: Sequence[Sample], models: Mapping[str, Sequence[Answers]]) -> str:
    columns = {name: column(test, runs) for name, runs in models.items() if runs}
    names = [*sorted({label_of(sample) for sample in test}), MEAN, f"{MEAN}, PA films", f"{MEAN}, AP films"]
    yes = [sum(label_of(s) == name and is_yes(s) for s in test) or "" for name in names]
    header = ["label", "yes", *(f"{name} ({len(models[name])})" for name in columns)]
    rows = [[n, str(y), *(cells.get(n, "–") for cells in columns.values())] for n, y in zip(names, yes, strict=True)]
    return aligned([header, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--phantom", type=Path, help="workdir of the phantom job; without it the arm is left out")
    parser.add_argument("--arms", nargs="+", default=["nothing", "phantom"], help="which of the starts to train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and run nothing")
    options = parser.parse_args()
    data = options.out / "data"
    make_data(options.raw, data)
    starts = {"nothing": None} | ({"phantom": options.phantom} if options.phantom else {})
    folders = {(arm, seed): options.out / f"{arm}-{seed}" for arm in reversed(starts) for seed in options.seeds}
    for (arm, seed), folder in folders.items():
        if arm in options.arms and not options.table:
            job.run(configuration(data, seed, options.models, starts[arm]), folder)
    samples = {split: read_samples(data / f"nih-questions/{split}.jsonl") for split in ("train", "test")}
    train, test = ([s for s in samples[split] if s.task == "binary"] for split in ("train", "test"))
    models = baselines(options.raw, train, test)
    for model in MODELS:
        for arm in starts:
            tests = [folders[arm, seed] / f"test/{model}.jsonl" for seed in options.seeds]
            models[f"{model} from {arm}"] = [answered(path) for path in tests if _complete(path, samples["test"])]
    print(table(test, models))


def _complete(path: Path, samples: Sequence[Sample]) -> bool:
    return path.exists() and len(read_predictions(path)) == len(samples)


if __name__ == "__main__":
    main()
