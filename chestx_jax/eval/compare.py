"""Runs side by side: one table, paired differences, one page, LaTeX and CSV."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from chestx_jax.eval.evaluate import baseline_table
from chestx_jax.eval.judges.ratescore import rated
from chestx_jax.eval.predictions.records import Prediction, read_good_predictions
from chestx_jax.eval.report.html import write_report
from chestx_jax.eval.report.tables import comparison_table, csv_table, difference_table, latex_table
from chestx_jax.eval.statistics.scores import Evaluation, compare, evaluate_predictions
from chestx_jax.files import write_json, write_text
from chestx_jax.lexicon import load

Say = Callable[[str], None]


def compare_runs(places: Sequence[str], out: Path, say: Say) -> dict[str, Any]:
    """Runs that `--out` wrote, or files of predictions, side by side: the table, the paired differences of neighbours
    on the items both answered, the accuracies without the film, one page in `out`."""
    lexicon = load()
    found = dict(zip(_names(places), (_read(place, say) for place in places), strict=True))
    evaluations = {
        name: evaluate_predictions(predictions, lexicon, rates=rated(predictions, say))
        for name, predictions in found.items()
    }
    say(comparison_table(evaluations))
    differences = {f"{b} - {a}": _difference(evaluations, a, b, say) for a, b in pairwise(evaluations)}
    blind = next((rows for rows in map(_baselines, places) if rows), {})
    if blind:
        say(baseline_table(blind))
    document = {
        "models": {name: e.to_json() for name, e in evaluations.items()},
        "differences": {
            name: {row: {m: asdict(d) for m, d in cells.items()} for row, cells in table.items()}
            for name, table in differences.items()
        },
        "baselines": blind,
    }
    pages = {name: (found[name], evaluations[name]) for name in evaluations}
    notes = {"Without the film": baseline_table(blind)} if blind else {}
    write_report(out / "report.html", pages, " against ".join(evaluations), notes)
    write_text(out / "table.tex", latex_table(evaluations))
    write_text(out / "table.csv", csv_table(evaluations))
    write_json(out / "scores.json", document)
    return document


def _names(places: Sequence[str]) -> list[str]:
    """The last part of each place, or all of it where two are alike."""
    names = [Path(place).name for place in places]
    return names if len(set(names)) == len(names) else [str(place) for place in places]


def _read(place: str, say: Say) -> list[Prediction]:
    path = Path(place) / "predictions.jsonl" if Path(place).is_dir() else Path(place)
    found, problems = read_good_predictions(path)
    for problem in problems:
        say(f"left out: {problem}")
    return found


def _difference(evaluations: Mapping[str, Evaluation], first: str, second: str, say: Say) -> dict[str, Any]:
    table = compare(evaluations[first], evaluations[second])
    say(difference_table(f"{second} - {first}", table) if table else f"{second} and {first} share no item")
    return table


def _baselines(place: str) -> dict[str, Any]:
    """What the run's own scores.json says of guessing without the film; nothing for a file of predictions."""
    try:
        return json.loads((Path(place) / "scores.json").read_text(encoding="utf-8"))["baselines"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
