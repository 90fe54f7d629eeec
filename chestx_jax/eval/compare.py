"""Finished runs side by side: one table, paired differences, one page, LaTeX and CSV."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chestx_jax.errors import UserError
from chestx_jax.eval.judges.ratescore import rated
from chestx_jax.eval.predictions.records import Prediction, read_good_predictions
from chestx_jax.eval.report.tables import closing_tables, csv_table, latex_table
from chestx_jax.eval.results import read_scores, training_curves, write_results
from chestx_jax.eval.statistics.comparison import JOB_MODELS, compare_models
from chestx_jax.files import write_text
from chestx_jax.lexicon import load


def compare_runs(places: Sequence[str], out: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """Scores the predictions at `places` again and sets the models side by side on one page in `out`.

    A place is a folder that `--out` wrote, the workdir of a training job (each model that it has tested, with the
    job's training curves), or a file of predictions. Neighbours are compared on the items both answered.

    Raises:
      UserError: a place holds no predictions, or a file cannot be read.
    """
    files = prediction_files(places)
    predictions = {name: _readable_predictions(path, log) for name, path in files.items()}
    ratescores = {name: rated(answers, log) for name, answers in predictions.items()}
    scores = next((document for document in map(read_scores, places) if document), {})
    guessers = scores.get("blind_baselines", {}).get("guessers", {})
    comparison = compare_models(predictions, load(), guessers, ratescores=ratescores)
    log(closing_tables(comparison))
    document = write_results(
        out,
        comparison,
        title=" against ".join(_labels(places)),
        asked=scores.get("run", {}).get("asked") if len(places) == 1 else None,
        curves=_curves(places),
    )
    write_text(out / "table.tex", latex_table(comparison.evaluations))
    write_text(out / "table.csv", csv_table(comparison.evaluations))
    return document


def prediction_files(places: Sequence[str]) -> dict[str, Path]:
    """Model name -> its file of predictions, in the order of the places.

    A model is called after its folder or file; one of several models of a job after both, where there are more places.
    """
    files: dict[str, Path] = {}
    for label, place in zip(_labels(places), map(Path, places), strict=True):
        order = {name: number for number, name in enumerate(JOB_MODELS)}
        tests = sorted((place / "test").glob("*.jsonl"), key=lambda path: (order.get(path.stem, len(order)), path.stem))
        if place.is_dir() and tests and not (place / "predictions.jsonl").exists():
            files |= {path.stem if len(places) == 1 else f"{label}/{path.stem}": path for path in tests}
        else:
            files[label] = place / "predictions.jsonl" if place.is_dir() else place
    for path in files.values():
        if not path.exists():
            raise UserError(f"{path} does not exist: --compare takes folders that --out or a job wrote, or predictions")
    return files


def _labels(places: Sequence[str]) -> list[str]:
    """The last part of each place (without a file's ending), or all of it where two are alike."""
    labels = [Path(place).name if Path(place).is_dir() else Path(place).stem for place in places]
    return labels if len(set(labels)) == len(labels) else [str(place) for place in places]


def _readable_predictions(path: Path, log: Callable[[str], None]) -> list[Prediction]:
    predictions, problems = read_good_predictions(path)
    for problem in problems:
        log(f"left out: {problem}")
    return predictions


def _curves(places: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The training curves of the jobs among the places; of several jobs with the job's name before the stage's."""
    several = len(places) > 1
    return {
        f"{label}/{stage}" if several else stage: records
        for label, place in zip(_labels(places), places, strict=True)
        for stage, records in training_curves(place).items()
    }
