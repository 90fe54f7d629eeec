"""The one writer of what training, evaluation and comparison measure: `scores.json` and `report.html` in a folder.

`scores.json` has one form, whoever writes it (fractions, not percent; null where there is no value):

    models            model -> {tasks, sources, labels, calibration}
      tasks           task family, `closed` (mean over the closed families) or `all`
                        -> {n, parsed, truncated, empty, refused, metrics: metric -> {mean, low, high, n}}
      sources         data set -> the same, apart by where the films come from
      labels          label, and "mean of labels" -> {asked, sensitivity, specificity, balanced_accuracy: {mean, low,
                        high, n}} of yes/no questions and {named, recall, precision} of open answers
      calibration     {n, brier, expected_error, bins: ten of {n, probability, accuracy}}, null where the model's
                        probabilities are unknown
    blind_baselines   {guessers, accuracy}: what is to be had without the film
      guessers        task family -> {letter, label, order, combined, n} (open questions: label, combined, f1, n);
                        view, too, where the views of the films are known
      accuracy        closed family -> the best of the guessers and of the model trained blind; `closed`: their mean
    changes           "B minus A" -> task family or `all` -> metric -> {mean, low, high, p, n}, paired by sample
    run               {asked, answered, awaited, complete, config}
      asked           number of samples (null: unknown, predictions alone were compared)
      answered        model -> number of its predictions
      awaited         models still to be tested while a job runs
      complete        whether nothing is awaited and every model has answered every sample
      config          what was asked and how (empty for a job: its config.json says it)

`low` and `high` bound the 95 % interval (`statistics.intervals`), `p` is of a paired sign-flip test.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chestx_jax import metrics
from chestx_jax.eval.report.html import report_page
from chestx_jax.eval.statistics.comparison import Comparison
from chestx_jax.files import write_json, write_text


def write_results(
    folder: str | Path,
    comparison: Comparison,
    *,
    title: str = "Evaluation",
    asked: int | None = None,
    awaited: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> dict[str, Any]:
    """Writes `scores.json` and `report.html` to `folder`, each whole or not at all; returns the scores document.

    A job calls it after each test, with the models tested so far.

    Args:
      comparison: the scored models, see `compare_models`.
      title: of the page.
      asked: number of samples that each model was asked.
      awaited: names of the models still to be tested.
      config: what was asked and how, for the document.
      curves: stage -> its metrics records in order of steps (see `training_curves`), drawn on the page.
    """
    answered = {name: len(evaluation.items) for name, evaluation in comparison.evaluations.items()}
    document: dict[str, Any] = {
        "models": {name: evaluation.to_json() for name, evaluation in comparison.evaluations.items()},
        "blind_baselines": {"guessers": comparison.guessers, "accuracy": comparison.blind_accuracy},
        "changes": {
            name: {row: {metric: asdict(d) for metric, d in cells.items()} for row, cells in table.items()}
            for name, table in comparison.changes.items()
        },
        "run": {
            "asked": asked,
            "answered": answered,
            "awaited": list(awaited),
            "complete": not awaited and all(count == (asked or count) for count in answered.values()),
            "config": dict(config or {}),
        },
    }
    write_json(Path(folder) / "scores.json", document)
    write_text(Path(folder) / "report.html", report_page(comparison, title, document["run"], curves or {}))
    return document


def read_scores(folder: str | Path) -> dict[str, Any]:
    """The scores document of a folder, of this form or of an earlier one; empty where there is none to be read."""
    try:
        document = json.loads((Path(folder) / "scores.json").read_text(encoding="utf-8"))
        return document if "blind_baselines" in document else _from_earlier_form(document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def training_curves(workdir: str | Path) -> dict[str, list[dict[str, Any]]]:
    """The metrics that a job's stages have recorded so far (WORKDIR/STAGE/STAGE.jsonl), in order of their beginning.

    Raises UserError naming the line of a file that is no metrics record.
    """
    paths = [path for path in Path(workdir).glob("*/*.jsonl") if path.stem == path.parent.name]
    stages = {path.stem: records for path in paths if (records := metrics.read(path))}
    return dict(sorted(stages.items(), key=lambda stage: stage[1][0].get("time", 0)))


def _from_earlier_form(document: Mapping[str, Any]) -> dict[str, Any]:
    """Before there was one form, an evaluation's scores of its one model were at the top, the guessers were called
    `baselines`, the changes `differences`, and ground-truth factuality `drawn_factuality`."""
    parts = ("tasks", "sources", "labels", "calibration")
    models: Mapping[str, Any] = (
        document["models"] if "models" in document else {document["model"]: {part: document[part] for part in parts}}
    )
    for model in models.values():
        for row in (*model["tasks"].values(), *model["sources"].values()):
            if "drawn_factuality" in row["metrics"]:
                row["metrics"]["ground_truth_factuality"] = row["metrics"].pop("drawn_factuality")
    return {
        "models": models,
        "blind_baselines": {"guessers": document.get("baselines", {}), "accuracy": document.get("blind", {})},
        "changes": document.get("changes") or document.get("differences", {}),
        "run": {key: document[key] for key in ("asked", "answered", "complete", "config") if key in document},
    }
